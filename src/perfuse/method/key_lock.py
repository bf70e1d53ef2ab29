"""How a concept's keys are pinned to its super-category (paper p. 4-5).

    LOCAL      o*_K = W_K e_super, frozen; keys are edited like values.
    GLOBAL     rendering only: keys are W_K of the whole prompt with every placeholder replaced by
               its super-category, un-edited; values as always.
    TRAINED_K  no lock: o*_K is trained like o*_V (the paper's ablation).

A LOCAL adapter serves LOCAL and GLOBAL renders.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perfuse.errors import InvalidArgument
from perfuse.method.operands import full_precision, require_axes, result_dtype


def locked_key_output(key_weight: Tensor, super_category_encoding: Tensor) -> Tensor:
    """o*_K = W_K e_super (paper p. 4).

    The same product with W_V is where o*_V starts in training.

    Args:
        key_weight: W_K of one layer [d_l, d].
        super_category_encoding: e_super [d], or [..., d].

    Returns:
        [d_l], or [..., d_l], in at least float32.

    Raises:
        WrongShape: the widths differ.
    """
    require_axes(
        key_weight=(key_weight, "d_l d"), super_category_encoding=(super_category_encoding, "... d")
    )
    dtype = result_dtype(key_weight, super_category_encoding)
    with full_precision(key_weight):
        return torch.nn.functional.linear(super_category_encoding.to(dtype), key_weight.to(dtype))


def key_positions(
    length: int,
    placeholders: Sequence[tuple[int, int]],
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """For each position of a concept prompt, where its key is in the super-category prompt.

    A super-category of n sub-tokens takes n positions where the placeholder took one, so that what
    follows moves by n − 1. A placeholder meets its super-category's last sub-token, which under a
    causal text encoder has seen the others. GLOBAL keys are `keys[..., key_positions(...), :]`.

    Args:
        length: M, the number of positions in either prompt, padding included.
        placeholders: (position in the concept prompt, sub-tokens of its super-category), in any
            order; a repeated placeholder is listed once per position.
        device: of the result; the CPU by default.

    Returns:
        int64 [length], not decreasing; what moves past the end takes the last row, M − 1.

    Raises:
        InvalidArgument: a position is outside the prompt or listed twice, or a count is below 1.
    """
    if length < 0:
        raise InvalidArgument(f"length is {length}; it is a number of positions, at least 0")
    positions = [position for position, _ in placeholders]
    if len(set(positions)) != len(positions):
        raise InvalidArgument(
            f"placeholders stand at positions {sorted(positions)}; list each position once"
        )
    shift = torch.zeros(length, dtype=torch.int64)
    for position, sub_tokens in placeholders:
        if not 0 <= position < length:
            raise InvalidArgument(
                f"a placeholder stands at position {position}; the prompt has positions 0 to "
                f"{length - 1}: shorten the prompt"
            )
        if sub_tokens < 1:
            raise InvalidArgument(
                f"the super-category at position {position} has {sub_tokens} sub-tokens; it has at "
                "least 1"
            )
        shift[position:] += sub_tokens - 1
    mapped = (torch.arange(length) + shift).clamp(max=length - 1)
    return mapped.to(device) if device is not None else mapped
