"""What the steps of a run see: pictures, mirroring, templates, timesteps, noise.

Every draw of step n comes from (seed, n) alone and is made on the CPU, so that it depends neither
on the device nor on the runs that share the step, and a checkpoint keeps no generator's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from perfuse.attach import BaseModel
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.templates import TEMPLATES


@dataclass(frozen=True, eq=False)
class Batch:
    """B rows of one run.

    Attributes:
        latents: Scaled, without noise, `[B, C, h, w]`.
        noise: Likewise.
        timesteps: `[B]`.
        templates: `[B]` indices into `TEMPLATES`, on the CPU.
        weight: Soft mask `[B, 1, h, w]`, or None.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    templates: Tensor
    weight: Tensor | None


class _Drawn(NamedTuple):
    """A batch's draws, on the CPU."""

    rows: Tensor
    timesteps: Tensor
    templates: Tensor
    mirrored: Tensor
    posterior: Tensor
    noise: Tensor


class Draws:
    """The batches of one run.

    Args:
        base: The base model.
        latents: The training pictures, encoded.
        settings: Of the run.
        weight: Soft masks `[N, 1, h, w]` over latents, or None.
    """

    def __init__(
        self,
        base: BaseModel,
        latents: PictureLatents,
        settings: TrainingSettings,
        weight: Tensor | None = None,
    ) -> None:
        self._latents, self._settings, self._device = latents, settings, base.device
        self._weight = None if weight is None else weight.to(base.device)
        self._timesteps = len(base.pipeline.scheduler.alphas_cumprod)
        self._ahead: dict[int, _Drawn] = {}

    def step(self, number: int) -> Batch:
        """The batch of the step after `number` steps."""
        return self._batch(self._ahead.get(number) or self._drawn(number))

    def look_ahead(self, number: int) -> None:
        """Draw what `step(number)` will ask for, while the device is busy with something else."""
        self._ahead = {number: self._drawn(number)}

    def validation(self) -> Batch:
        """The same rows, templates, timesteps and noise at every validation, evenly spread."""
        rows = torch.arange(self._settings.validation_rows)
        lot = torch.Generator().manual_seed(self._settings.seed + 7)
        return self._batch(
            _Drawn(
                rows=rows % self._latents.count,
                timesteps=((rows + 0.5) / len(rows) * self._timesteps).long(),
                templates=rows % len(TEMPLATES),
                mirrored=torch.zeros(len(rows), dtype=torch.bool),
                posterior=self._noise(lot, len(rows)),
                noise=self._noise(lot, len(rows)),
            )
        )

    def _drawn(self, number: int) -> _Drawn:
        settings = self._settings
        lot = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        # In this order: it decides what a seed gives.
        return _Drawn(
            rows=torch.randint(self._latents.count, (settings.batch,), generator=lot),
            timesteps=torch.randint(self._timesteps, (settings.batch,), generator=lot),
            templates=torch.randint(len(TEMPLATES), (settings.batch,), generator=lot),
            mirrored=torch.rand(settings.batch, generator=lot) < settings.flip,
            posterior=self._noise(lot, settings.batch),
            noise=self._noise(lot, settings.batch),
        )

    def _noise(self, lot: torch.Generator, rows: int) -> Tensor:
        return torch.randn((rows, *self._latents.mean.shape[2:]), generator=lot)

    def _batch(self, drawn: _Drawn) -> Batch:
        rows, mirrored = drawn.rows.to(self._device), drawn.mirrored.to(self._device)
        weight = None
        if self._weight is not None:
            weight = self._weight[rows]
            weight = torch.where(mirrored[:, None, None, None], weight.flip(-1), weight)
        exact = self._latents.mean
        latents = self._latents.draw(rows, mirrored, drawn.posterior.to(exact))
        timesteps = drawn.timesteps.to(self._device)
        return Batch(latents, drawn.noise.to(exact), timesteps, drawn.templates, weight)
