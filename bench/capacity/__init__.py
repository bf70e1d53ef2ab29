"""What a fleet bears, by simulation: written up in docs/capacity.md."""
