"""Training runs: the rules, the queue, and who may write."""
