"""What the wire says: message codes, framing, formats, startup, authentication exchanges. Standard library only."""
