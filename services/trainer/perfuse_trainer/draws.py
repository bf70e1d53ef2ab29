"""What the steps of a run see: pictures, mirroring, templates, timesteps, noise.

Every draw of step n comes from (seed, n) alone and is made on the CPU, so that it depends neither
on the device nor on the runs that share the step, and a checkpoint keeps no generator's state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perfuse.attach import BaseModel
from perfuse_trainer.latents import PictureLatents
from perfuse_trainer.settings import TrainingSettings
from perfuse_trainer.templates import TEMPLATES


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

    def step(self, number: int) -> Batch:
        """The batch of the step after `number` steps."""
        settings = self._settings
        lot = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        return self._batch(
            lot,
            rows=torch.randint(self._latents.count, (settings.batch,), generator=lot),
            timesteps=torch.randint(self._timesteps, (settings.batch,), generator=lot),
            templates=torch.randint(len(TEMPLATES), (settings.batch,), generator=lot),
            mirrored=torch.rand(settings.batch, generator=lot) < settings.flip,
        )

    def validation(self) -> Batch:
        """The same rows, templates, timesteps and noise at every validation, evenly spread."""
        rows = torch.arange(self._settings.validation_rows)
        lot = torch.Generator().manual_seed(self._settings.seed + 7)
        return self._batch(
            lot,
            rows=rows % self._latents.count,
            timesteps=((rows + 0.5) / len(rows) * self._timesteps).long(),
            templates=rows % len(TEMPLATES),
            mirrored=torch.zeros(len(rows), dtype=torch.bool),
        )

    def _batch(
        self,
        lot: torch.Generator,
        *,
        rows: Tensor,
        timesteps: Tensor,
        templates: Tensor,
        mirrored: Tensor,
    ) -> Batch:
        shape = (len(rows), *self._latents.mean.shape[2:])
        posterior, noise = torch.randn(shape, generator=lot), torch.randn(shape, generator=lot)
        rows, mirrored = rows.to(self._device), mirrored.to(self._device)
        weight = None
        if self._weight is not None:
            weight = self._weight[rows]
            weight = torch.where(mirrored[:, None, None, None], weight.flip(-1), weight)
        latents = self._latents.draw(rows, mirrored, posterior.to(self._latents.mean))
        return Batch(latents, noise.to(latents), timesteps.to(self._device), templates, weight)
