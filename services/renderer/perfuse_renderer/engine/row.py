"""A row: one picture in the making, with a state of its own in everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from perfuse.attach import BaseModel, Conditioning, ConditioningPlan
from perfuse.errors import WrongShape
from perfuse_renderer.engine.schedulers import make_scheduler, step_arguments


@dataclass(frozen=True, eq=False)
class Picture:
    """What decides a picture.

    Attributes:
        plan: of the prompt.
        negative: of the negative prompt; not read where guidance is 1 or less.
        seed: of the noise.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        scheduler: by name; empty for the base model's own.
        height, width: in pixels.

    Raises:
        WrongShape: guidance would compare plans of different lengths.
    """

    plan: ConditioningPlan
    negative: ConditioningPlan
    seed: int
    steps: int
    guidance: float
    scheduler: str
    height: int
    width: int

    def __post_init__(self) -> None:
        own, against = len(self.plan.encodings), len(self.negative.encodings)
        if self.lanes > 1 and own != against:
            raise WrongShape(
                f"the prompt has {own} positions and the negative prompt {against}; plan the "
                "shorter one with the other's number of chunks as min_chunks"
            )

    @property
    def positions(self) -> int:
        """Of the text that its rows attend to."""
        return len(self.plan.encodings)

    @property
    def lanes(self) -> int:
        """Rows of the denoiser's batch that it takes: guidance compares two."""
        return 2 if self.guidance > 1 else 1


def latent_shape(base: BaseModel, height: int, width: int) -> tuple[int, int, int, int]:
    """Of one picture's latents, whose height and width are in pixels."""
    scale = base.pipeline.vae_scale_factor
    return 1, base.unet.config.in_channels, height // scale, width // scale


class Row:
    """A picture at one of its steps; it may wait between any two of them.

    Everything that a step reads or writes is the row's own or never written (the plans), so what
    else is in the batch does not matter to it.

    Attributes:
        picture: what it will be.
        latents: [1, c, h, w] as they are now.
        step: steps of the denoiser done.
        steps: steps of the denoiser in all; some schedulers take more than were asked for.
    """

    def __init__(self, base: BaseModel, picture: Picture) -> None:
        self.picture = picture
        self._base = base
        self._scheduler = make_scheduler(base, picture.scheduler)
        self._scheduler.set_timesteps(picture.steps, device=base.device)
        # On the CPU, so that neither device nor batch changes the draw.
        generator = torch.Generator("cpu").manual_seed(picture.seed)
        self._arguments = step_arguments(self._scheduler, generator)
        noise = randn_tensor(
            latent_shape(base, picture.height, picture.width),
            generator=generator,
            device=torch.device(base.device),
            dtype=base.unet.dtype,
        )
        self.latents = noise * self._scheduler.init_noise_sigma
        self.step = 0

    @property
    def steps(self) -> int:
        """See above."""
        return len(self._scheduler.timesteps)

    @property
    def done(self) -> bool:
        """Whether the last step is behind it."""
        return self.step >= self.steps

    @property
    def conditioning(self) -> tuple[Conditioning, ...]:
        """One row of conditioning for each lane: the negative first, as diffusers has it."""
        if self.picture.lanes == 1:
            return (self.picture.plan.conditioning,)
        return (self.picture.negative.conditioning, self.picture.plan.conditioning)

    def model_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [lanes, c, h, w] and timesteps [lanes] for the denoiser."""
        timestep = self._scheduler.timesteps[self.step]
        lanes = self.picture.lanes
        doubled = torch.cat([self.latents] * lanes) if lanes > 1 else self.latents
        scaled = self._scheduler.scale_model_input(doubled, timestep)
        # The denoiser embeds timesteps as floats; whole and fractional ones then share a batch.
        return scaled, timestep.to(self.latents.device, torch.float32).expand(lanes)

    def advance(self, prediction: torch.Tensor) -> None:
        """Take the denoiser's prediction [lanes, c, h, w] for the present step."""
        if self.picture.lanes == 2:
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + self.picture.guidance * (conditional - unconditional)
        timestep: Any = self._scheduler.timesteps[self.step]
        self.latents = self._scheduler.step(
            prediction, timestep, self.latents, **self._arguments, return_dict=False
        )[0]
        self.step += 1

    @property
    def is_finite(self) -> bool:
        """Whether the latents are numbers; asks the device and waits for it."""
        return bool(self.latents.isfinite().all())
