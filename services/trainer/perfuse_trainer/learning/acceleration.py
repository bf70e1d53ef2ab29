"""How the frozen base model computes: choices for speed and memory that leave the method alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from perfuse.attach import BaseModel


@dataclass(frozen=True)
class Acceleration:
    """What a training process asks of its base model.

    The defaults change no number but by the rounding of another order of sums. A run resumed bit
    for bit needs the same choices on the same machine.

    Attributes:
        dtype: Of the frozen weights and of what passes through them. What is trained, its
            optimiser, the gate and the loss stay in float32.
        channels_last: Lay convolutions' tensors out pixel by pixel, as tensor cores read them. On a
            CPU it gains on one base and loses on another (bench/results/trainer.json): measure.
        checkpointing: Compute the denoiser's blocks again on the way back and keep only what goes
            in: about a third more time for far less memory, so that more runs share a pack.
        compile: A `torch.compile` backend for the denoiser, such as "inductor"; None runs it as it
            is. Each new number of rows compiles anew, so that it pays for long runs in packs that
            seldom change.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    checkpointing: bool = False
    compile: str | None = None

    def load(self, directory: str | Path, *, device: str | torch.device = "cpu") -> BaseModel:
        """`BaseModel.load` with these choices applied; raises what it raises."""
        base = BaseModel.load(directory, dtype=getattr(torch, self.dtype), device=device)
        self.apply(base)
        return base

    def apply(self, base: BaseModel) -> None:
        """Make a loaded base compute so; its dtype stays as it was loaded.

        Args:
            base: Used for training alone from now on: its denoiser is changed in place, and
                renders with it would differ in rounding.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        base.unet.to(memory_format=layout)
        if self.checkpointing:
            base.unet.enable_gradient_checkpointing()
        else:
            base.unet.disable_gradient_checkpointing()
        if self.compile is not None:
            base.unet.compile(backend=self.compile)
