"""The nine neutral prompts of training; the slot takes the placeholder or the super-category."""

from __future__ import annotations

TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a photo of the {}",
    "an image of a {}",
    "image of the {}",
    "a picture of the {}",
    "a rendering of a {}",
    "a drawing of the {}",
    "a depiction of the {}",
    "a {} shown in a photo",
)
