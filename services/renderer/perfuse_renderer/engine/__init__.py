"""The engine: one thread, one base model, and every row of the batch a picture of its own."""
