"""The peer LoRA: rank 4 on the key and value projections of every cross-attention layer, by peft.

It is trained as diffusers' script for DreamBooth with LoRA does, on the super-category's own word
and with a frozen text encoder. Keys and values depend on text alone, so that a picture with it
needs no changed denoiser: what the LoRA adds is added to a plan's keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from bench.trainer_peers import Objective
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    Prompt,
    encode_tokens,
    plan,
    tokenise,
)
from perfuse_trainer.learning.draws import Batch
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.templates import TEMPLATES

RANK = 4


class Lora:
    """A LoRA in the making.

    Args:
        base: The base model; left as it is.
        learning: Gives the super-category.
        rate: AdamW's learning rate.
        seed: Of the first values.

    Attributes:
        denoiser: The base's, with peft's layers in it.
    """

    def __init__(self, base: BaseModel, learning: Learning, rate: float, seed: int) -> None:
        self._objective = Objective(base)
        self.denoiser = self._objective.unet
        names = [f"{layer.name}.{part}" for layer in base.layers for part in ("to_k", "to_v")]
        torch.manual_seed(seed)
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)
        inject_adapter_in_model(config, self.denoiser)
        trained = [one for one in self.denoiser.parameters() if one.requires_grad]
        self._optimiser = torch.optim.AdamW(trained, lr=rate)
        texts = [text.format(learning.settings.super_category) for text in TEMPLATES]
        with torch.no_grad():
            self._encodings = encode_tokens(
                base, [tokenise(base, Prompt.parse(text)) for text in texts]
            ).encodings

    def step(self, batch: Batch) -> Tensor:
        """The loss of one optimiser step."""
        loss = self._objective.loss(batch, batch.latents, self._encodings[batch.templates])
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """As peft keeps it: layer's name with `.to_k.lora_A.weight` and so on."""
        state: dict[str, Tensor] = get_peft_model_state_dict(self.denoiser)
        return state


@torch.no_grad()
def lora_plan(
    base: BaseModel, caption: str, states: Sequence[Mapping[str, Tensor]], scale: float
) -> ConditioningPlan:
    """The caption's plan with LoRAs on: each adds `scale` times its change."""
    plain = plan(base, caption)
    keys, values = list(plain.keys), list(plain.values)
    for state in states:
        for index, layer in enumerate(base.layers):
            for part, rows in (("to_k", keys), ("to_v", values)):
                down = state[f"{layer.name}.{part}.lora_A.weight"].to(base.dtype)
                up = state[f"{layer.name}.{part}.lora_B.weight"].to(base.dtype)
                rows[index] = rows[index] + scale * (plain.encodings @ down.T @ up.T)
    return replace(plain, keys=tuple(keys), values=tuple(values))
