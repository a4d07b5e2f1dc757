"""Who runs where: supervisor, worker, and the messages between them."""
