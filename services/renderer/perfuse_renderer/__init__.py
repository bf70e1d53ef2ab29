"""The Renderer: prompts that name concepts, composed into pictures on a resident base model."""
