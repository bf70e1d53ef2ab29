"""How strongly a concept is on at each position of a prompt (paper Eq. 3).

    e_m    encodings           [..., d]   text-encoder output at position m
    i*     target_input        [d]        the direction that switches the edit on
    C⁻¹    inverse_covariance  [d, d]     the metric: ⟨a, b⟩ = aᵀ C⁻¹ b
    s_m    similarity          [...]      1 at i*, about 0 for unrelated words
    β, τ   bias, temperature              where the gate opens, and how softly

Similarity and gate are one vector per prompt, shared by all layers, by keys and by values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perfuse.errors import InvalidArgument, NotFinite, WrongShape
from perfuse.method.operands import (
    full_precision,
    require_axes,
    require_finite,
    result_dtype,
    working_dtype,
)


def inner_product(a: Tensor, b: Tensor, inverse_covariance: Tensor) -> Tensor:
    """⟨a, b⟩ = aᵀ C⁻¹ b (paper Eq. 3, its metric).

    Args:
        a: [..., d].
        b: [..., d]; leading axes broadcast with those of `a`.
        inverse_covariance: C⁻¹ [d, d], symmetric; best kept in float64, in which it is applied.

    Returns:
        [...], in the wider type of `a` and `b` and at least float32.

    Raises:
        WrongShape: the widths differ or the leading axes do not broadcast.
    """
    require_axes(a=(a, "... d"), b=(b, "... d"), inverse_covariance=(inverse_covariance, "d d"))
    dtype = working_dtype(a)
    # C⁻¹ is symmetric, so it may be applied to either: the smaller one is cheaper.
    larger, smaller = (a, b) if a.numel() >= b.numel() else (b, a)
    with full_precision(a):
        metric = smaller.to(dtype) @ inverse_covariance.to(dtype)
        product: Tensor = torch.linalg.vecdot(larger.to(dtype), metric)
    return product.to(result_dtype(a, b))


def similarity(
    encodings: Tensor,
    target_input: Tensor,
    inverse_covariance: Tensor,
    *,
    check_finite: bool = True,
) -> Tensor:
    """s_m = ⟨i*, e_m⟩ / ⟨i*, i*⟩ (paper Eq. 3).

    Args:
        encodings: e [..., d].
        target_input: i* [d]; or [..., d] with leading axes that broadcast with the encodings', so
            that rows [B, M, d] with a concept each take [B, 1, d].
        inverse_covariance: C⁻¹ [d, d], symmetric and positive definite.
        check_finite: look at ⟨i*, i*⟩ once, which waits for the device. A training loop, which
            watches its loss anyway, may turn it off.

    Returns:
        [...], computed and returned in at least float32 also where the encodings are halves.

    Raises:
        WrongShape: the widths differ or the leading axes do not broadcast.
        NotFinite: i* or C⁻¹ holds NaN or infinity.
        InvalidArgument: ⟨i*, i*⟩ is not positive.
    """
    require_axes(encodings=(encodings, "... d"), target_input=(target_input, "... d"))
    energy = inner_product(target_input, target_input, inverse_covariance)
    if check_finite:
        require_energy(energy, target_input, inverse_covariance)
    return inner_product(encodings, target_input, inverse_covariance) / energy


def require_energy(energy: Tensor, target_inputs: Tensor, inverse_covariance: Tensor) -> None:
    """Refuse target inputs whose energy ⟨i*, i*⟩ is not a positive number.

    The energy touches every entry of i* and of C⁻¹, so that it is the one number to look at.

    Raises:
        NotFinite: i* or C⁻¹ holds NaN or infinity.
        InvalidArgument: an energy is zero, negative, or beyond the number type.
    """
    lowest, highest = (energy.min().item(), energy.max().item()) if energy.numel() else (1.0, 1.0)
    if lowest > 0 and math.isfinite(highest):
        return
    require_finite(target_input=target_inputs, inverse_covariance=inverse_covariance)
    raise InvalidArgument(
        f"⟨i*, i*⟩ lies between {lowest:.3g} and {highest:.3g}; it must be positive and finite: "
        "give a target input that is not zero and an inverse covariance that is positive definite "
        "(Covariance.inverse)"
    )


def gate(similarity: Tensor, bias: float | Tensor, temperature: float | Tensor) -> Tensor:
    """σ((s_m − β) / τ), the share of the target output at each position (paper Eq. 3).

    Args:
        similarity: s [...].
        bias: β, the similarity at which the gate is half open; a number, or a tensor that
            broadcasts to the similarity's shape (one entry per concept).
        temperature: τ > 0, a number or a tensor likewise. A tensor is looked at once, which waits
            for its device.

    Returns:
        The similarity's shape, between 0 and 1, in at least float32.

    Raises:
        WrongShape: bias or temperature does not broadcast to the similarity's shape.
        NotFinite: bias or temperature is NaN or infinite.
        InvalidArgument: a temperature is not above 0.
    """
    require_axes(similarity=(similarity, "..."))
    for name, parameter in (("bias", bias), ("temperature", temperature)):
        _require_parameter(name, parameter, similarity.shape)
    lowest = temperature.min().item() if isinstance(temperature, Tensor) else temperature
    if not lowest > 0:
        raise InvalidArgument(
            f"temperature is {lowest}; it must be above 0 (0.10 in training, 0.15 in rendering)"
        )
    dtype = result_dtype(similarity)
    return torch.sigmoid((similarity.to(dtype) - bias) / temperature).to(dtype)


def _require_parameter(name: str, parameter: float | Tensor, shape: torch.Size) -> None:
    """A bias or temperature: finite, and one per entry of the similarity at most."""
    if not isinstance(parameter, Tensor):
        if not math.isfinite(parameter):
            raise NotFinite(f"{name} is {parameter}; it must be a finite number")
        return
    require_finite(**{name: parameter})
    own = parameter.shape
    if len(own) > len(shape) or any(
        size not in (1, other) for size, other in zip(reversed(own), reversed(shape), strict=False)
    ):
        raise WrongShape(
            f"{name} has shape {list(own)}, which does not broadcast to the "
            f"similarity's {list(shape)}; give one number, or one per concept (the last axis)"
        )
