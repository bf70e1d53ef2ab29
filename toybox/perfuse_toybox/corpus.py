"""The training pictures, drawn once from a seed and kept in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perfuse_toybox.drawing import paint
from perfuse_toybox.world import SIZE, Picture, training_picture


@dataclass(frozen=True)
class Corpus:
    """Pictures and what is in them.

    Attributes:
        pictures: What each picture shows; captions are worded from it anew each time.
        pixels: `[N, 3, 32, 32]` uint8.
    """

    pictures: tuple[Picture, ...]
    pixels: Tensor

    @classmethod
    def draw(
        cls,
        count: int,
        seed: int,
        choose: Callable[[random.Random], Picture] = training_picture,
        on_progress: Callable[[int], None] = lambda drawn: None,
    ) -> Corpus:
        """Draw `count` pictures; the same seed gives the same corpus."""
        lot = random.Random(seed)
        pictures = []
        pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)
        for index in range(count):
            pictures.append(choose(lot))
            pixels[index] = paint(pictures[-1]).transpose(2, 0, 1)
            on_progress(index + 1)
        return cls(tuple(pictures), torch.from_numpy(pixels))

    def __len__(self) -> int:
        return len(self.pictures)

    def samples(self, rows: Tensor) -> Tensor:
        """The pictures at `rows` as float32 in -1 to 1, channels last in memory."""
        return to_sample(self.pixels[rows])


def to_sample(pixels: Tensor) -> Tensor:
    """uint8 `[N, 3, H, W]` to float32 in -1 to 1."""
    return pixels.float().div(127.5).sub(1.0).contiguous(memory_format=torch.channels_last)


def to_pixels(samples: Tensor) -> Tensor:
    """Float in -1 to 1 to uint8 of the same shape, rounded and clamped."""
    return samples.add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
