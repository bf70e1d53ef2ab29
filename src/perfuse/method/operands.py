"""What an equation accepts: axes that agree, finite numbers, enough precision.

The checks of shape read metadata only and cost nothing on any device. The checks of numbers wait
for the device, so the modules apply them to small tensors alone and never in `edit` or `blend`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import zip_longest

import torch
from torch import Tensor

from perfuse.errors import InvalidArgument, NotFinite, WrongShape


def require_axes(**operands: tuple[Tensor, str]) -> None:
    """Refuse tensors whose axes do not fit each other.

    Each operand comes with its axes, as in `encodings=(encodings, "... M d")`: a letter has one
    size wherever it stands, a number is that size, and leading axes written `...` must broadcast.

    Raises:
        WrongShape: a rank or a size disagrees; the message names both operands.
        InvalidArgument: an operand is not of a floating-point type.
    """
    for name, (tensor, _) in operands.items():
        if not tensor.is_floating_point():
            raise InvalidArgument(
                f"{name} is of type {tensor.dtype}; it must be a floating-point tensor: "
                "convert it with .float()"
            )
    _require_fit(tuple((name, tensor.shape, axes) for name, (tensor, axes) in operands.items()))


# A base model's shapes come again and again; what was refused is not remembered.
@lru_cache(maxsize=1024)
def _require_fit(operands: tuple[tuple[str, torch.Size, str], ...]) -> None:
    first_seen: dict[str, tuple[int, str]] = {}
    leading: dict[str, torch.Size] = {}
    for name, shape, axes in operands:
        letters = axes.split()
        is_batched = letters[0] == "..."
        letters = letters[1:] if is_batched else letters
        batch_rank = len(shape) - len(letters)
        if batch_rank < 0 or (batch_rank > 0 and not is_batched):
            raise WrongShape(
                f"{name} has shape {list(shape)}; its axes must be [{', '.join(axes.split())}]"
            )
        for letter, size in zip(letters, shape[batch_rank:], strict=True):
            required, owner = first_seen.setdefault(
                letter, (int(letter), "the rule") if letter.isdigit() else (size, name)
            )
            if size != required:
                raise WrongShape(
                    f"{name} has shape {list(shape)}, so its axis {letter} is {size}, but "
                    f"{owner} has {required}; give tensors of one base model and prompt length"
                )
        if is_batched:
            leading[name] = shape[:batch_rank]
    columns = zip_longest(*(reversed(shape) for shape in leading.values()), fillvalue=1)
    if any(len({*column} - {1}) > 1 for column in columns):
        seen = ", ".join(f"{name} {list(shape)}" for name, shape in leading.items())
        raise WrongShape(
            f"the leading axes do not broadcast: {seen}; give each the same, 1, or none"
        )


def require_finite(**operands: Tensor) -> None:
    """Refuse NaN and infinity. Waits for the device: for small tensors only.

    Raises:
        NotFinite: names the operand, how many entries are wrong and where the first one is.
    """
    for name, tensor in operands.items():
        wrong = ~torch.isfinite(tensor)
        if bool(wrong.any()):
            first = wrong.nonzero()[0].tolist()
            raise NotFinite(
                f"{name} holds {int(wrong.sum())} NaN or infinite entries of {tensor.numel()}, the "
                f"first at {first}; every entry must be finite: check what it was computed from"
            )


def working_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which C⁻¹ products run: float64, or float32 where the device lacks it.

    They are a small part of the work, and C⁻¹ of a text encoder has a condition number of 1e3 to
    1e10, which would eat most digits of a float32.
    """
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest of the operands' types, and at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which a surrounding autocast does not narrow our matrix products."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
