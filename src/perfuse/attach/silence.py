"""Keeps diffusers and transformers from drawing progress bars of their own while loading."""

from __future__ import annotations

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def silence_loading() -> None:
    """For commands with a progress bar of their own; process-wide, so a library never calls it."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
