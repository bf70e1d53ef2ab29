"""Several concepts in one prompt (paper App. B).

    P e  = Iᵀ c,  c = G⁻¹ (I C⁻¹ e),  G_jk = ⟨i*_j, i*_k⟩
    h    = W (e − P e) + Σ_j σ((s_j − β_j)/τ_j) o*_j

    I      target_inputs            [J, d]          one row per concept
    s_j    similarities             [..., M, J]     what the gates look at
    c      coordinates              [..., M, J]     of P e in the target inputs
    W I    projected_target_inputs  [J, d_l]        constants per layer
    o*_j   target_outputs           [J, d_l]

P is the C⁻¹-orthogonal projection onto the span of the target inputs. The paper builds it with a
Cholesky factor of C⁻¹ and a QR decomposition; the J × J Gram system gives the same projection.
Subtracting each concept alone does not: it is wrong by tens of percent for related concepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perfuse.errors import DependentConcepts, InvalidArgument
from perfuse.method.gate import require_energy
from perfuse.method.operands import full_precision, require_axes, result_dtype, working_dtype

INDEPENDENCE_LIMIT = 0.01
"""Smallest eigenvalue allowed in the matrix of cosines between target inputs; for two concepts,
1 − |cosine|, so that their cosine stays below 0.99. Coordinates magnify what is uncertain in the
encodings by up to 1/√limit, tenfold here: an encoding rounded to half precision (2⁻¹¹) then keeps
its coordinates to half a percent, which is below what can be seen."""


def similarities(encodings: Tensor, target_inputs: Tensor, inverse_covariance: Tensor) -> Tensor:
    """s_mj = ⟨i*_j, e_m⟩ / ⟨i*_j, i*_j⟩ (paper Eq. 3, for each concept).

    Args:
        encodings: e [..., M, d].
        target_inputs: I [J, d], or [..., J, d] for rows with their own concepts.
        inverse_covariance: C⁻¹ [d, d], symmetric and positive definite.

    Returns:
        [..., M, J], computed and returned in at least float32.

    Raises:
        WrongShape: the axes do not fit each other.
        NotFinite, InvalidArgument: as `gate.similarity`.
    """
    _require_operands(encodings, target_inputs, inverse_covariance)
    products, gram = _products(encodings, target_inputs, inverse_covariance)
    energies = gram.diagonal(dim1=-2, dim2=-1)
    require_energy(energies, target_inputs, inverse_covariance)
    dtype = result_dtype(encodings, target_inputs)
    return (products / energies.unsqueeze(-2)).to(dtype)


def coordinates(
    encodings: Tensor,
    target_inputs: Tensor,
    inverse_covariance: Tensor,
    *,
    names: Sequence[str] | None = None,
) -> Tensor:
    """c = G⁻¹ (I C⁻¹ e), the coordinates of P e in the target inputs (paper App. B).

    Args:
        encodings: e [..., M, d].
        target_inputs: I [J, d], or [..., J, d] for rows with their own concepts. A concept that a
            prompt names twice is given once.
        inverse_covariance: C⁻¹ [d, d], symmetric and positive definite.
        names: what to call the J concepts in an error.

    Returns:
        [..., M, J], computed and returned in at least float32.

    Raises:
        DependentConcepts: the target inputs are too close to be told apart; names the pair.
        WrongShape: the axes do not fit each other.
        NotFinite, InvalidArgument: as `gate.similarity`.
    """
    _require_operands(encodings, target_inputs, inverse_covariance)
    count = target_inputs.shape[-2]
    if names is not None and len(names) != count:
        raise InvalidArgument(f"{len(names)} names are given for {count} target inputs; name each")
    products, gram = _products(encodings, target_inputs, inverse_covariance)
    energies = gram.diagonal(dim1=-2, dim2=-1)
    require_energy(energies, target_inputs, inverse_covariance)
    # Solving for target inputs of length 1 keeps the system well scaled whatever their lengths.
    lengths = energies.sqrt()
    cosines = gram / (lengths.unsqueeze(-1) * lengths.unsqueeze(-2))
    _require_independent(cosines, names)
    unit_coordinates: Tensor = torch.linalg.solve(
        cosines, products / lengths.unsqueeze(-2), left=False
    )
    dtype = result_dtype(encodings, target_inputs)
    return (unit_coordinates / lengths.unsqueeze(-2)).to(dtype)


def blend(
    projected: Tensor,
    projected_target_inputs: Tensor,
    coordinates: Tensor,
    gates: Tensor,
    target_outputs: Tensor,
) -> Tensor:
    """h = W e − c (W I) + Σ_j σ_j ⊗ o*_j (paper App. B), at every position.

    Never waits for the device; gradients reach every operand. For J = 1 it equals `edit`.

    Args:
        projected: W e [..., M, d_l].
        projected_target_inputs: W i*_j as rows [J, d_l], or [..., J, d_l].
        coordinates: c [..., M, J].
        gates: σ_j [..., M, J].
        target_outputs: o*_j as rows [J, d_l], or [..., J, d_l].

    Returns:
        h [..., M, d_l], of the type of `projected`, rounded to it once; `projected` itself where
        there is no concept.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(
        projected=(projected, "... M d_l"),
        projected_target_inputs=(projected_target_inputs, "... J d_l"),
        coordinates=(coordinates, "... M J"),
        gates=(gates, "... M J"),
        target_outputs=(target_outputs, "... J d_l"),
    )
    if coordinates.shape[-1] == 0:
        return projected
    dtype = result_dtype(projected, projected_target_inputs, coordinates, gates, target_outputs)
    with full_precision(projected):
        removed = coordinates.to(dtype) @ projected_target_inputs.to(dtype)
        added = gates.to(dtype) @ target_outputs.to(dtype)
        return (projected - removed + added).to(projected.dtype)


def _require_operands(encodings: Tensor, target_inputs: Tensor, inverse_covariance: Tensor) -> None:
    require_axes(
        encodings=(encodings, "... M d"),
        target_inputs=(target_inputs, "... J d"),
        inverse_covariance=(inverse_covariance, "d d"),
    )


def _products(
    encodings: Tensor, target_inputs: Tensor, inverse_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """⟨i*_j, e_m⟩ [..., M, J] and G [..., J, J], in the working precision."""
    dtype = working_dtype(encodings)
    with full_precision(encodings):
        inputs = target_inputs.to(dtype)
        metric = inputs @ inverse_covariance.to(dtype)
        return encodings.to(dtype) @ metric.mT, inputs @ metric.mT


def _require_independent(cosines: Tensor, names: Sequence[str] | None) -> None:
    """Refuse target inputs too close to linear dependence, naming the closest pair."""
    count = cosines.shape[-1]
    if count < 2:
        return
    for system in cosines.detach().to("cpu", torch.float64).reshape(-1, count, count):
        smallest = float(torch.linalg.eigvalsh(system)[0])
        if smallest >= INDEPENDENCE_LIMIT:
            continue
        closeness = system.abs().triu(diagonal=1)
        j, k = divmod(int(closeness.argmax()), count)
        first, second = (f"{index} ({names[index]})" if names else f"{index}" for index in (j, k))
        raise DependentConcepts(
            f"concepts {first} and {second} have target inputs of cosine {float(system[j, k]):.4f} "
            f"and the smallest eigenvalue of all {count} concepts' cosines is {smallest:.3g}; "
            f"it must be at least {INDEPENDENCE_LIMIT}: leave one of the two out of the prompt, or "
            "train one again with pictures or a super-category that set it apart"
        )
