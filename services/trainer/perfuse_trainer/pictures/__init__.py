"""Training pictures, from hostile bytes to plain pixels."""
