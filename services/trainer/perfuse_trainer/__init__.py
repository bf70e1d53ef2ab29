"""The Trainer: from a handful of pictures to an adapter."""
