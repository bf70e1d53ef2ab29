"""What a plan takes from an adapter and no prompt changes: computed once, used in every prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perfuse import method
from perfuse.adapter import Adapter
from perfuse.attach.base_model import BaseModel
from perfuse.attach.projection import projected_by_keys, projected_by_values


@dataclass(frozen=True, eq=False)
class PreparedConcept:
    """An adapter made ready for one base model; tensors on the base's device.

    Attributes:
        base: the base model.
        adapter: what was learned.
        digest: of the adapter.
        target_input: i* [d].
        dual_input: C⁻¹ i* [d], in float64 where the device has it.
        value_input: W_V i* of all layers [Σ d_l].
        key_input: W_K i* likewise.
        value_output: o*_V [Σ d_l].
        super_category_value: W_V e_super [Σ d_l].
        locked_key_output: W_K e_super [Σ d_l], o*_K under LOCAL.
        value_left: operands [1, Σ d_l] with which values leave the super-category behind.
        locked_key_left: those with which keys do, under LOCAL.
    """

    base: BaseModel
    adapter: Adapter
    digest: str
    target_input: torch.Tensor
    dual_input: torch.Tensor
    value_input: torch.Tensor
    key_input: torch.Tensor
    value_output: torch.Tensor
    super_category_value: torch.Tensor
    locked_key_output: torch.Tensor
    value_left: method.Filled
    locked_key_left: method.Filled

    @property
    def nbytes(self) -> int:
        """What its tensors take, those of the adapter included."""
        adapter = self.adapter
        held = [
            *(self.target_input, self.dual_input, self.value_input, self.key_input),
            *(self.value_output, self.super_category_value, self.locked_key_output),
            *(*self.value_left, *self.locked_key_left),
            *(adapter.target_input, adapter.super_category_encoding, adapter.value_output),
            *adapter.embeddings.values(),
            *([] if adapter.key_output is None else [adapter.key_output]),
        ]
        return sum({id(tensor): tensor.nbytes for tensor in held}.values())


@torch.no_grad()
def prepare_concept(base: BaseModel, adapter: Adapter) -> PreparedConcept:
    """Make an adapter ready: about forty bytes for each of its outputs, and W read once.

    Args:
        base: the adapter's base model.
        adapter: for that base model; `plan` refuses another one's.

    Raises:
        FailedPrecondition: the base model has no covariance.
    """
    inputs = adapter.target_input.to(base.device)
    # Both in one product, since reading W is what it costs.
    both = torch.stack([inputs, adapter.super_category_encoding.to(inputs)])
    key_input, locked = projected_by_keys(base, both)
    value_input, super_category_value = projected_by_values(base, both)
    value_output = adapter.value_output.to(base.device)
    return PreparedConcept(
        base=base,
        adapter=adapter,
        digest=adapter.digest,
        target_input=inputs,
        dual_input=method.dual_inputs(inputs[None], base.inverse_covariance)[0],
        value_input=value_input,
        key_input=key_input,
        value_output=value_output,
        super_category_value=super_category_value,
        locked_key_output=locked,
        value_left=method.filled(value_input[None], value_output[None], super_category_value[None]),
        locked_key_left=method.filled(key_input[None], locked[None], locked[None]),
    )
