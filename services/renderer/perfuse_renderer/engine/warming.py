"""Warm-up: every batch that is to be fast is stepped before anyone waits for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from perfuse.attach import BaseModel, concatenate, unconditional
from perfuse.errors import FailedPrecondition
from perfuse_renderer.engine.decoder import Decoder
from perfuse_renderer.engine.pace import Pace, Size
from perfuse_renderer.engine.row import latent_shape
from perfuse_renderer.engine.stepper import Stepper

_TRIALS = 3
"""Of each batch: the first compiles, the second may record a CUDA graph, the last is timed."""

_log = logging.getLogger(__name__)


@torch.no_grad()
def warm(
    base: BaseModel,
    stepper: Stepper,
    decoder: Decoder,
    pace: Pace,
    sizes: Sequence[Size],
    lanes: Sequence[int],
    chunks: Sequence[int],
) -> None:
    """Step batches of every size and number of lanes, and decode a picture of every size.

    What each step takes is learned on the way, so that admission knows it before the first
    render. Where the device's memory ends, batches end from now on.

    Args:
        base: the resident base model, attached.
        stepper: whose denoiser to warm.
        decoder: to warm likewise.
        pace: that learns.
        sizes: heights and widths in pixels.
        lanes: rows of a batch; one that does not fit is left out.
        chunks: of the text that they attend to.

    Raises:
        FailedPrecondition: not even the smallest batch fits.
    """
    for size in sizes:
        latents = torch.zeros(latent_shape(base, *size), dtype=base.dtype, device=base.device)
        for length in chunks:
            nothing = unconditional(base, length).conditioning
            fitting = 0
            for count in sorted(lanes):
                try:
                    batch = latents.expand(count, -1, -1, -1), concatenate([nothing] * count)
                    seconds = [stepper.trial(*batch) for _ in range(_TRIALS)]
                except torch.OutOfMemoryError:
                    stepper.release()
                    break
                pace.learn(size, count, seconds[-1])
                fitting = count
            _judge(stepper, size, fitting, lanes)
        decoder.pixels(latents)


def _judge(stepper: Stepper, size: Size, fitting: int, lanes: Sequence[int]) -> None:
    """From now on batches have no more lanes than fit.

    Raises:
        FailedPrecondition: none do.
    """
    if not fitting:
        raise FailedPrecondition(
            f"a step of {min(lanes)} pictures of {size[0]} × {size[1]} does not fit into the "
            "device's memory. Use a larger device, a smaller dtype or smaller pictures"
        )
    if fitting < max(lanes):
        stepper.max_lanes = min(stepper.max_lanes, fitting)
        _log.warning("%d × %d: only %d lanes fit into memory", *size, fitting)
