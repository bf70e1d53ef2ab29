"""Several concepts in one prompt (paper App. B).

    P e  = Iᵀ c,  c = G⁻¹ (I C⁻¹ e),  G_jk = ⟨i*_j, i*_k⟩
    h    = W (e − P e) + Σ_j σ((s_j − β_j)/τ_j) o*_j

    I      target_inputs            [J, d]          one row per concept
    s_j    similarities             [..., M, J]     what the gates look at
    c      coordinates              [..., M, J]     of P e in the target inputs
    W I    projected_target_inputs  [J, d_l]        constants per layer
    o*_j   target_outputs           [J, d_l]
    I C⁻¹  dual_inputs              [J, d]          constants per base model

P is the C⁻¹-orthogonal projection onto the span of the target inputs. The paper builds it with a
Cholesky factor of C⁻¹ and a QR decomposition; the J × J Gram system gives the same projection.
Subtracting each concept alone does not: it is wrong by tens of percent for related concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


class Activity(NamedTuple):
    """What a prompt has of J concepts, at each position.

    Attributes:
        similarities: s [..., M, J].
        coordinates: c [..., M, J].
    """

    similarities: Tensor
    coordinates: Tensor


def dual_inputs(target_inputs: Tensor, inverse_covariance: Tensor) -> Tensor:
    """I C⁻¹, with which ⟨i*_j, e⟩ is a plain product; the part that knows no prompt.

    Args:
        target_inputs: I [..., J, d].
        inverse_covariance: C⁻¹ [d, d], symmetric and positive definite.

    Returns:
        [..., J, d] in float64, or float32 where the device lacks it.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(
        target_inputs=(target_inputs, "... J d"), inverse_covariance=(inverse_covariance, "d d")
    )
    dtype = working_dtype(target_inputs)
    with full_precision(target_inputs):
        return target_inputs.to(dtype) @ inverse_covariance.to(dtype)


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
    products, _, energies = _products(encodings, target_inputs, inverse_covariance)
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
    return activity(encodings, target_inputs, inverse_covariance, names=names).coordinates


def activity(
    encodings: Tensor,
    target_inputs: Tensor,
    inverse_covariance: Tensor,
    *,
    duals: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> Activity:
    """`similarities` and `coordinates` from one set of products; raises what they raise.

    Args:
        encodings, target_inputs, inverse_covariance, names: as `coordinates`.
        duals: `dual_inputs` of the target inputs, where they are at hand.
    """
    count = target_inputs.shape[-2]
    if names is not None and len(names) != count:
        raise InvalidArgument(f"{len(names)} names are given for {count} target inputs; name each")
    products, gram, energies = _products(encodings, target_inputs, inverse_covariance, duals)
    dtype = result_dtype(encodings, target_inputs)
    found = (products / energies.unsqueeze(-2)).to(dtype)
    if count == 1:
        # The system has one equation, and the similarity solves it.
        return Activity(found, found)
    # Solving for target inputs of length 1 keeps the system well scaled whatever their lengths.
    lengths = energies.sqrt()
    cosines = gram / (lengths.unsqueeze(-1) * lengths.unsqueeze(-2))
    _require_independent(cosines, names)
    unit_coordinates: Tensor = torch.linalg.solve(
        cosines, products / lengths.unsqueeze(-2), left=False
    )
    return Activity(found, (unit_coordinates / lengths.unsqueeze(-2)).to(dtype))


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
    changed = change(projected_target_inputs, coordinates, gates, target_outputs)
    return (projected + changed).to(projected.dtype)


def change(
    projected_target_inputs: Tensor, coordinates: Tensor, gates: Tensor, target_outputs: Tensor
) -> Tensor:
    """h − W e = Σ_j σ_j ⊗ o*_j − c (W I), what `blend` adds to W e (paper App. B).

    It does not read W e, so that one call serves several layers whose outputs are concatenated.

    Args:
        projected_target_inputs: W i*_j as rows [J, d_l], or [..., J, d_l].
        coordinates: c [..., M, J].
        gates: σ_j [..., M, J].
        target_outputs: o*_j as rows [J, d_l], or [..., J, d_l].

    Returns:
        [..., M, d_l], in at least float32.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    factors, outer = change_terms(projected_target_inputs, coordinates, gates, target_outputs)
    with full_precision(gates):
        return factors @ outer


def change_terms(
    projected_target_inputs: Tensor, coordinates: Tensor, gates: Tensor, target_outputs: Tensor
) -> tuple[Tensor, Tensor]:
    """The two factors of `change`, for those who add their product to something in one pass.

    Args:
        projected_target_inputs, coordinates, gates, target_outputs: as `change`.

    Returns:
        [σ, −c] as [..., M, 2 J], and o* above W I as [..., 2 J, d_l]; in at least float32.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(
        projected_target_inputs=(projected_target_inputs, "... J d_l"),
        coordinates=(coordinates, "... M J"),
        gates=(gates, "... M J"),
        target_outputs=(target_outputs, "... J d_l"),
    )
    dtype = result_dtype(projected_target_inputs, coordinates, gates, target_outputs)
    # One product of 2 J terms is one pass over the outcome.
    outputs, inputs = target_outputs.to(dtype), projected_target_inputs.to(dtype)
    if outputs.shape != inputs.shape:
        outputs, inputs = torch.broadcast_tensors(outputs, inputs)
    outer = torch.cat([outputs, inputs], dim=-2)
    return torch.cat([gates.to(dtype), -coordinates.to(dtype)], dim=-1), outer


def _products(
    encodings: Tensor,
    target_inputs: Tensor,
    inverse_covariance: Tensor,
    duals: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """⟨i*_j, e_m⟩ [..., M, J], G [..., J, J] and its diagonal, in the working precision."""
    require_axes(
        encodings=(encodings, "... M d"),
        target_inputs=(target_inputs, "... J d"),
        inverse_covariance=(inverse_covariance, "d d"),
    )
    if duals is None:
        duals = dual_inputs(target_inputs, inverse_covariance)
    with full_precision(encodings):
        products = encodings.to(duals.dtype) @ duals.mT
        gram = target_inputs.to(duals.dtype) @ duals.mT
    energies = gram.diagonal(dim1=-2, dim2=-1)
    require_energy(energies, target_inputs, inverse_covariance)
    return products, gram, energies


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
