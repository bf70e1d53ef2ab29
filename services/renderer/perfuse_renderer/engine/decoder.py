"""Latents to pixels, on a thread of its own so that the steps go on meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch

from perfuse.attach import BaseModel

Told = Callable[[torch.Tensor | Exception], None]


class Decoder:
    """Decodes one picture after another.

    Args:
        base: whose autoencoder.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._work: queue.SimpleQueue[tuple[torch.Tensor, Told] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="perfuse-decoder", daemon=True)
        self._thread.start()

    def decode(self, latents: torch.Tensor, told: Told) -> None:
        """Decode `[1, c, h, w]` and hand the pixels `[3, H, W]` uint8, or what went wrong, on."""
        self._work.put((latents, told))

    def close(self) -> None:
        """Finish what is waiting, then end."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            latents, told = work
            try:
                told(self.pixels(latents))
            except Exception as error:
                told(error)

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels as the stock pipeline makes them, `[3, H, W]` uint8 on the CPU."""
        vae = self._base.pipeline.vae
        config = vae.config
        scaled = latents.to(vae.dtype) / config.scaling_factor
        if getattr(config, "shift_factor", None):
            scaled = scaled + config.shift_factor
        image = vae.decode(scaled, return_dict=False)[0][0]
        unit = (image * 0.5 + 0.5).clamp(0, 1)
        pixels: torch.Tensor = (unit.float() * 255).round().to(torch.uint8).cpu()
        return pixels
