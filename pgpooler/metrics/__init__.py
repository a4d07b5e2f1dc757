"""What happened: counters and events."""
