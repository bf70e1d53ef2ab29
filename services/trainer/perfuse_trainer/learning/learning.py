"""What a run learns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from perfuse.attach import (
    BaseModel,
    Prompt,
    encode_tokens,
    initial_value_outputs,
    locked_key_outputs,
    tokenise,
)
from perfuse.method import KeyLock
from perfuse.method.operands import result_dtype
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.templates import TEMPLATES


class Learning:
    """A concept in the making: trained parameters, the target input and what stays fixed.

    Args:
        base: The base model, prepared and frozen.
        settings: Of the run.
        first_templates: `[B]` indices of the first batch's templates; the super-category's
            encoding is their mean.

    What is trained is kept in float32, or in float64 where the base is, whatever the base's dtype.

    Attributes:
        settings: Of the run.
        prompts: The templates, tokenised with the placeholder in their slot.
        embeddings: Text encoder's name → the placeholder's word embedding, trained.
        value_output: o*_V of all layers `[Σ d_l]`, trained, starts at W_V e_super.
        key_output: o*_K `[Σ d_l]`; trained under TRAINED_K, else W_K e_super for good.
        target_input: i* `[d]`, a running mean without gradient (paper Sec. 4.4); what an adapter
            has of it is `settling`'s.
        super_category_encoding: e_super `[d]`.
    """

    def __init__(
        self, base: BaseModel, settings: TrainingSettings, first_templates: Tensor
    ) -> None:
        self._base, self.settings = base, settings
        name = settings.placeholder
        prompts = [Prompt.parse(text.format(f"<{name}>"), [name]) for text in TEMPLATES]
        self.prompts = tuple(tokenise(base, prompt) for prompt in prompts)
        super_prompts = [
            tokenise(base, prompt.with_super_categories({name: settings.super_category}))
            for prompt in prompts
        ]
        with torch.no_grad():
            supers = encode_tokens(base, super_prompts).at_slots(name)
            supers = supers.to(result_dtype(supers))
            self.super_category_encoding = supers[first_templates.to(supers.device)].mean(0)
        self.target_input = self.super_category_encoding.clone()
        # The last sub-token's embedding: with several, it is where the noun's meaning sits.
        position = super_prompts[0].slots[0].position
        self.embeddings = {}
        for index, encoder in enumerate(base.encoders):
            table = encoder.text_model.embeddings.token_embedding.weight
            word = table[super_prompts[0].ids[index][position]].detach()
            self.embeddings[encoder.name] = nn.Parameter(word.to(result_dtype(word), copy=True))
        self.value_output = nn.Parameter(initial_value_outputs(base, self.super_category_encoding))
        self.key_output = locked_key_outputs(base, self.super_category_encoding)
        if settings.key_lock is KeyLock.TRAINED_K:
            self.key_output = nn.Parameter(self.key_output)

    def outputs(self) -> Iterator[nn.Parameter]:
        """The trained target outputs."""
        yield self.value_output
        if isinstance(self.key_output, nn.Parameter):
            yield self.key_output

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that is trained."""
        yield from self.embeddings.values()
        yield from self.outputs()

    @property
    def supplied(self) -> dict[str, dict[str, nn.Parameter]]:
        """The placeholder's word embeddings, as `perfuse.attach.encode_tokens` takes them."""
        return {self.settings.placeholder: self.embeddings}

    def state(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint keeps, copied to the CPU."""
        tensors = {
            "target_input": self.target_input,
            "super_category_encoding": self.super_category_encoding,
            "value_output": self.value_output,
            "key_output": self.key_output,
        }
        tensors |= {f"embedding.{name}": value for name, value in self.embeddings.items()}
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a checkpoint's tensors."""
        self.target_input = state["target_input"].to(self._base.device)
        self.super_category_encoding = state["super_category_encoding"].to(self._base.device)
        self.value_output.copy_(state["value_output"])
        self.key_output.copy_(state["key_output"])
        for name, value in self.embeddings.items():
            value.copy_(state[f"embedding.{name}"])
