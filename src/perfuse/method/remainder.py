"""What stands where an edit takes a concept's input away and a closing gate does not put it back.

    NOTHING         h = W (e − P e) + Σ_j σ_j o*_j                            (paper Eq. 3, App. B)
    SUPER_CATEGORY  h = W (e − P e) + Σ_j (σ_j o*_j + (c_j − σ_j) W e_super_j)
                      = W e + Σ_j σ_j (o*_j − W e_super_j) − Σ_j c_j W (i*_j − e_super_j)

The edit subtracts all of P e whatever the gate. Where the gate is half open, and at words that
carry a little of the concept, the paper's form leaves a hole: neither the concept nor what it is a
kind of. Filled with the super-category, a closed gate gives the prompt of the super-category, so
that the bias goes all the way from the one to the other; and a locked key no longer depends on the
gate at all: o*_K = W_K e_super leaves W_K (e − Σ_j c_j (i*_j − e_super_j)).

Concepts are trained in the paper's form: there the hole keeps a concept from being learned by the
words after it (docs/decisions/0013-remainder.md has the figures).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from torch import Tensor

from perfuse.method.operands import require_axes


class Remainder(StrEnum):
    """The two ways; the value is the name."""

    SUPER_CATEGORY = "SUPER_CATEGORY"
    NOTHING = "NOTHING"


class Filled(NamedTuple):
    """Operands of `blend` and `change` with which they leave the super-category behind.

    Attributes:
        projected_target_inputs: W (i*_j − e_super_j) as rows [J, d_l].
        target_outputs: o*_j − W e_super_j as rows [J, d_l].
    """

    projected_target_inputs: Tensor
    target_outputs: Tensor


def filled(
    projected_target_inputs: Tensor, target_outputs: Tensor, projected_super_categories: Tensor
) -> Filled:
    """The operands for `Remainder.SUPER_CATEGORY` from those for `Remainder.NOTHING`.

    Args:
        projected_target_inputs: W i*_j as rows [J, d_l], or [..., J, d_l].
        target_outputs: o*_j likewise.
        projected_super_categories: W e_super_j likewise (`locked_key_output`).

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(
        projected_target_inputs=(projected_target_inputs, "... J d_l"),
        target_outputs=(target_outputs, "... J d_l"),
        projected_super_categories=(projected_super_categories, "... J d_l"),
    )
    return Filled(
        projected_target_inputs - projected_super_categories,
        target_outputs - projected_super_categories,
    )
