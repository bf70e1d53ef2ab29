"""What a run learns, and how it conditions the denoiser while it is still being learned."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from perfuse import method
from perfuse.attach import (
    BaseModel,
    Conditioning,
    Prompt,
    edited_projections,
    encode_tokens,
    initial_value_outputs,
    locked_key_outputs,
    strength,
    tokenise,
)
from perfuse.method import KeyLock
from perfuse_trainer.settings import TrainingSettings
from perfuse_trainer.templates import TEMPLATES


class Learning:
    """A concept in the making: trained parameters, the target input and what stays fixed.

    Args:
        base: The base model, prepared and frozen.
        settings: Of the run.
        first_templates: `[B]` indices of the first batch's templates; the super-category's
            encoding is their mean.

    Attributes:
        embeddings: Text encoder's name → the placeholder's word embedding, trained.
        value_output: o*_V of all layers `[Σ d_l]`, trained, starts at W_V e_super.
        key_output: o*_K `[Σ d_l]`; trained under TRAINED_K, else W_K e_super for good.
        target_input: i* `[d]`, a running mean without gradient (paper Sec. 4.4).
        super_category_encoding: e_super `[d]`.
    """

    def __init__(
        self, base: BaseModel, settings: TrainingSettings, first_templates: Tensor
    ) -> None:
        self._base, self._settings = base, settings
        name = settings.placeholder
        prompts = [Prompt.parse(text.format(f"<{name}>"), [name]) for text in TEMPLATES]
        self._concept_tokens = [tokenise(base, prompt) for prompt in prompts]
        self._super_tokens = [
            tokenise(base, prompt.with_super_categories({name: settings.super_category}))
            for prompt in prompts
        ]
        with torch.no_grad():
            supers = encode_tokens(base, self._super_tokens).at_slots(name).float()
            self.super_category_encoding = supers[first_templates].mean(0)
        self.target_input = self.super_category_encoding.clone()
        # The last sub-token's embedding: with several, it is where the noun's meaning sits.
        position = self._super_tokens[0].slots[0].position
        self.embeddings = {
            encoder.name: nn.Parameter(
                encoder.text_model.embeddings.token_embedding.weight[
                    self._super_tokens[0].ids[index][position]
                ]
                .detach()
                .float()
                .clone()
            )
            for index, encoder in enumerate(base.encoders)
        }
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

    def condition(self, templates: Tensor, *, follow: bool) -> Conditioning:
        """Keys and values for rows with the given templates, differentiable in the parameters.

        Each distinct template is encoded, edited and projected once and its rows share it, so the
        text encoder's cost does not grow with the batch.

        Args:
            templates: `[B]` indices into `TEMPLATES`.
            follow: Let the target input follow this batch (training; not validation).
        """
        name = self._settings.placeholder
        distinct, rows = torch.unique(templates, return_inverse=True)
        tokens = [self._concept_tokens[index] for index in distinct.tolist()]
        encoding = encode_tokens(self._base, tokens, [{name: self.embeddings}] * len(tokens))
        rows = rows.to(encoding.encodings.device)
        if follow:
            self._follow(encoding.at_slots(name).detach().float()[rows].mean(0))
        on = strength(
            self._base,
            encoding.encodings,
            self.target_input[None],
            self._settings.bias,
            self._settings.temperature,
        )
        keys, values = edited_projections(
            self._base,
            encoding.encodings,
            on,
            self.value_output[None],
            self.key_output[None],
        )
        # index_select, not indexing: the gradient of key[rows] adds up in an order of the threads'.
        return Conditioning(
            keys=tuple(key.index_select(0, rows) for key in keys),
            values=tuple(value.index_select(0, rows) for value in values),
            encodings=encoding.encodings.index_select(0, rows),
            pooled=None if encoding.pooled is None else encoding.pooled.index_select(0, rows),
        )

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

    def _follow(self, encoding: Tensor) -> None:
        self.target_input = method.running_mean(self.target_input, encoding, self._settings.decay)
