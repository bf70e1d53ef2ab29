"""The base's denoiser and text encoder, trained together from nothing on captioned latents."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from perfuse_toybox import checkpoint
from perfuse_toybox.autoencoder import LATENT_CHANNELS
from perfuse_toybox.captions import caption
from perfuse_toybox.corpus import Corpus
from perfuse_toybox.language import WIDTH, build_text_encoder
from perfuse_toybox.optimiser import BuildOptimiser, linear_tail

LATENT_SIZE = 8


@dataclass(frozen=True)
class DenoiserRecipe:
    """How denoiser and text encoder are trained.

    The learning rate is constant but for the last quarter, so that a finished base can be trained
    on by asking for more steps.
    """

    steps: int = 2050
    batch: int = 64
    matrix_rate: float = 0.01
    other_rate: float = 1.5e-3
    unsaid: float = 0.1
    average: float = 0.999
    seed: int = 12


def build_denoiser() -> UNet2DConditionModel:
    """An untrained UNet with cross-attention at both levels, 6.9 million parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(128, 128),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule: cosine, velocity prediction, sampling from pure noise."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


class DenoiserTraining:
    """Denoiser and text encoder in training, with a running average of both.

    Args:
        tokenizer: The base's tokenizer.
        corpus: The pictures, for their captions.
        latents: Their scaled latents, `[N, 16, 8, 8]`.
        recipe: How to train.
        state_file: Where training goes on from, and is kept every 200 steps.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        corpus: Corpus,
        latents: Tensor,
        recipe: DenoiserRecipe,
        state_file: Path,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self._tokenizer, self._corpus, self._latents = tokenizer, corpus, latents
        self._recipe, self._state_file, self._device = recipe, state_file, device
        self.unet = build_denoiser().to(device, memory_format=torch.channels_last)
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer).to(device)
        self._scheduler = build_scheduler()
        self._optimiser = BuildOptimiser(
            [self.unet, self.text_encoder], recipe.matrix_rate, recipe.other_rate
        )
        self._average = {name: value.clone() for name, value in self._state().items()}
        self.step = 0
        if state := checkpoint.load(state_file):
            self._load(state["parameters"])
            self._average = {name: value.to(device) for name, value in state["average"].items()}
            self._optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]

    def run(self, on_step: Callable[[int, float], None]) -> None:
        """Train to the recipe's last step; `on_step` gets the step's number and loss."""
        while self.step < self._recipe.steps:
            loss = self._train_step()
            self.step += 1
            on_step(self.step, loss)
            if self.step % 200 == 0 or self.step == self._recipe.steps:
                checkpoint.save(
                    self._state_file,
                    {
                        "parameters": self._state(),
                        "average": self._average,
                        "optimiser": self._optimiser.state_dict(),
                        "step": self.step,
                    },
                )

    def averaged(self) -> tuple[UNet2DConditionModel, CLIPTextModel]:
        """Copies of denoiser and text encoder with the running average as parameters."""
        unet, text_encoder = build_denoiser(), build_text_encoder(self._tokenizer)
        for prefix, module in (("unet.", unet), ("text_encoder.", text_encoder)):
            module.load_state_dict(
                {
                    name.removeprefix(prefix): value.cpu()
                    for name, value in self._average.items()
                    if name.startswith(prefix)
                }
            )
            module.eval().requires_grad_(False)
        return unet, text_encoder

    def _train_step(self) -> float:
        recipe = self._recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        lot = random.Random(f"{recipe.seed}/{self.step}")
        rows = torch.randint(len(self._corpus), (recipe.batch,), generator=generator)
        texts = [
            "" if lot.random() < recipe.unsaid else caption(self._corpus.pictures[row], lot)
            for row in rows.tolist()
        ]
        ids = self._tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        latents = self._latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator)
        # One timestep from each of `batch` equal strata: the loss varies less from step to step.
        strata = torch.arange(recipe.batch) + torch.rand(recipe.batch, generator=generator)
        timesteps = (strata * (1000 / recipe.batch)).long().clamp(max=999)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        target = self._scheduler.get_velocity(latents, noise, timesteps)
        encodings = self.text_encoder(ids.to(self._device)).last_hidden_state
        predicted = self.unet(
            noisy.to(self._device, memory_format=torch.channels_last),
            timesteps.to(self._device),
            encodings,
        ).sample
        loss = nn.functional.mse_loss(predicted, target.to(self._device))
        loss.backward()
        self._optimiser.step(linear_tail(self.step, recipe.steps))
        decay = min(recipe.average, (1 + self.step) / (10 + self.step))
        state = self._state()
        average = list(self._average.values())
        torch._foreach_lerp_(average, [state[name] for name in self._average], 1 - decay)
        return float(loss.detach())

    def _state(self) -> dict[str, Tensor]:
        state = {f"unet.{name}": value.detach() for name, value in self.unet.named_parameters()}
        for name, value in self.text_encoder.named_parameters():
            state[f"text_encoder.{name}"] = value.detach()
        return state

    def _load(self, parameters: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._state().items():
                value.copy_(parameters[name])
