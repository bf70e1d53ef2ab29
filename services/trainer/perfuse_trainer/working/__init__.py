"""What turns in a worker."""
