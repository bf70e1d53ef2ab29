"""Where workers run: processes on this machine, or actors of a Ray cluster."""
