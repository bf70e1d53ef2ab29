"""Where a training run's masks come from."""

from __future__ import annotations

from enum import StrEnum


class MaskSource(StrEnum):
    """Where the masks of a training run come from."""

    NONE = "NONE"
    """No masks: every position counts the same."""
    UPLOADED = "UPLOADED"
    """Every picture brings its own: a mask file or an alpha channel."""
    CLIPSEG = "CLIPSEG"
    """A CLIPSeg checkpoint (Lüddecke and Ecker 2022) is asked for the super-category."""
    CROSS_ATTENTION = "CROSS_ATTENTION"
    """The base model's own attention to the super-category; no second model is needed."""
