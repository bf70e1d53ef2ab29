"""The gated rank-one edit of one concept (paper Eq. 3).

e_m⊥ = e_m − s_m i*
h_m  = W e_m⊥ + σ((s_m − β)/τ) o*  =  W e_m − s_m (W i*) + σ_m o*

W e    projected               [..., M, d_l]   what the frozen projection gives
W i*   projected_target_input  [d_l]           a constant per layer and concept
s, σ   similarity, gate        [..., M]        shared by every layer
o*     target_output           [d_l]           what the concept's word gives instead
"""

from __future__ import annotations

from torch import Tensor

from perfuse.method.operands import require_axes, result_dtype


def edit(
    projected: Tensor,
    projected_target_input: Tensor,
    similarity: Tensor,
    gate: Tensor,
    target_output: Tensor,
) -> Tensor:
    """h = W e − s ⊗ (W i*) + σ ⊗ o* (paper Eq. 3), at every position.

    W stays outside, so that a fused or quantised projection serves as it is. Never waits for the
    device; gradients reach every operand.

    Args:
        projected: W e [..., M, d_l].
        projected_target_input: W i* [d_l], or [..., d_l] for rows with a concept each.
        similarity: s [..., M].
        gate: σ [..., M].
        target_output: o* [d_l], or [..., d_l] for rows with a concept each.

    Returns:
        h [..., M, d_l], of the type of `projected`, rounded to it once.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(
        projected=(projected, "... M d_l"),
        projected_target_input=(projected_target_input, "... d_l"),
        similarity=(similarity, "... M"),
        gate=(gate, "... M"),
        target_output=(target_output, "... d_l"),
    )
    dtype = result_dtype(projected, projected_target_input, similarity, gate, target_output)
    removed = similarity.to(dtype).unsqueeze(-1) * projected_target_input.unsqueeze(-2)
    added = gate.to(dtype).unsqueeze(-1) * target_output.unsqueeze(-2)
    return (projected - removed + added).to(projected.dtype)
