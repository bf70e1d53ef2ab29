"""i*, the target input of a concept: the running mean of its encoding (paper Sec. 4.4).

It starts at the encoding of the super-category in the first batch, follows the placeholder's
encoding during training, and is frozen afterwards. It is a buffer: no gradient passes through it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perfuse.errors import InvalidArgument
from perfuse.method.operands import require_axes, result_dtype

DECAY = 0.99
"""Per optimiser step (paper Sec. 4.4)."""


@torch.no_grad()
def running_mean(current: Tensor, encoding: Tensor, decay: float = DECAY) -> Tensor:
    """i* ← decay · i* + (1 − decay) · e (paper Sec. 4.4).

    Args:
        current: i* before the step [d].
        encoding: the concept's encoding at the placeholder, mean of the batch [d].
        decay: from 0 (forget) to below 1.

    Returns:
        A new tensor [d] without gradient, in at least float32: a half could not take steps of
        one percent.

    Raises:
        WrongShape: the widths differ.
        InvalidArgument: the decay is outside [0, 1).
    """
    require_axes(current=(current, "d"), encoding=(encoding, "d"))
    if not 0 <= decay < 1:
        raise InvalidArgument(f"decay is {decay}; it must be at least 0 and below 1 (usually 0.99)")
    dtype = result_dtype(current, encoding)
    return torch.lerp(current.to(dtype), encoding.to(dtype), 1 - decay)
