"""Training pictures as latents, encoded once: as they are and mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perfuse.attach import BaseModel
from perfuse.method.operands import result_dtype
from perfuse_trainer.pictures.images import TrainingPicture, fit


@dataclass(frozen=True, eq=False)
class PictureLatents:
    """The autoencoder's posterior of N pictures, as they are and mirrored.

    Attributes:
        mean: [2, N, C, h, w] in at least float32; mirrored pictures under index 1.
        std: likewise.
        scale: the autoencoder's scaling factor.
        shift: the autoencoder's shift, 0 for most.
        pictures: the fitted pictures in -1 to 1, [N, 3, H, W].
        masks: [N, 1, H, W] in 0 to 1, or None where no picture brings one.
    """

    mean: Tensor
    std: Tensor
    scale: float
    shift: float
    pictures: Tensor
    masks: Tensor | None

    @classmethod
    @torch.no_grad()
    def encode(
        cls, base: BaseModel, pictures: Sequence[TrainingPicture], size: int | None = None
    ) -> PictureLatents:
        """Fit the pictures to the base's size and encode each twice.

        Args:
            base: the base model.
            pictures: at least one.
            size: height and width in pixels; the base's own by default.
        """
        size = size or base.unet.config.sample_size * base.pipeline.vae_scale_factor
        fitted = [fit(picture, size) for picture in pictures]
        stacked = torch.stack([pixels for pixels, _ in fitted]).to(base.device, base.dtype)
        masks = None
        if any(mask is not None for _, mask in fitted):
            # A picture without a mask counts everywhere.
            masks = torch.stack(
                [torch.ones(1, size, size) if mask is None else mask for _, mask in fitted]
            ).to(base.device)
        means, stds = [], []
        for view in (stacked, stacked.flip(-1)):
            # Picture by picture: a 512-pixel encoder's memory must not grow with the folder.
            posteriors = [base.vae.encode(one[None]).latent_dist for one in view]
            means.append(torch.cat([posterior.mean for posterior in posteriors]))
            stds.append(torch.cat([posterior.std for posterior in posteriors]))
        config = base.vae.config
        exact = result_dtype(stacked)
        return cls(
            mean=torch.stack(means).to(exact),
            std=torch.stack(stds).to(exact),
            scale=float(config.scaling_factor),
            shift=float(config.get("shift_factor") or 0.0),
            pictures=stacked,
            masks=masks,
        )

    @property
    def count(self) -> int:
        """N."""
        return int(self.mean.shape[1])

    @property
    def plain(self) -> Tensor:
        """Scaled means of the pictures as they are, [N, C, h, w]."""
        return (self.mean[0] - self.shift) * self.scale

    def draw(self, rows: Tensor, mirrored: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] of pictures `rows`, with the posterior's own noise."""
        flips = mirrored.long()
        latents = self.mean[flips, rows] + self.std[flips, rows] * noise
        return (latents - self.shift) * self.scale
