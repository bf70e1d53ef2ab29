"""A denoiser as slow as a file says, so that a test slows the engines of other processes too."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from perfuse.attach import BaseModel, Conditioning, denoise


@dataclass(frozen=True)
class Slowed:
    """The denoiser, with a pause before every step.

    Attributes:
        file: holds the seconds of the pause.
    """

    file: str

    def __call__(
        self, base: BaseModel, latents: torch.Tensor, timesteps: torch.Tensor, given: Conditioning
    ) -> torch.Tensor:
        if said := Path(self.file).read_text():
            time.sleep(float(said))
        return denoise(base, latents, timesteps, given)
