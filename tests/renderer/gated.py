"""An engine whose every step waits for a permit, so that a test decides what meets in a batch."""

from __future__ import annotations

import itertools
import threading
import time

import torch

from perfuse.attach import BaseModel, Conditioning, denoise
from perfuse_renderer.engine.decoder import Decoder, Told
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings

SECONDS = 60.0


class Gate:
    """The denoiser, one call for each permit; a call fails on request."""

    def __init__(self) -> None:
        self.lanes: list[int] = []
        self.fault: Exception | None = None
        self._changed = threading.Condition()
        self._here = False
        self._permits = 0
        self._open = False

    def __call__(
        self, base: BaseModel, latents: torch.Tensor, timesteps: torch.Tensor, given: Conditioning
    ) -> torch.Tensor:
        with self._changed:
            self._here = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open or self._permits, SECONDS)
            self._permits = max(0, self._permits - 1)
            fault, self.fault = self.fault, None
        # Alone, a picture would fail with it; the fault is the batch's.
        if fault is not None and latents.shape[0] > 2:
            raise fault
        self.lanes.append(latents.shape[0])
        return denoise(base, latents, timesteps, given)

    def permit(self) -> None:
        """Let the call that waits go."""
        with self._changed:
            assert self._here
            self._here = False
            self._permits += 1
            self._changed.notify_all()

    def open(self) -> None:
        """Let every call go from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def settle(self, engine: Engine) -> bool:
        """Wait until a call waits, or nothing is left to step; whether a call waits."""
        until = time.monotonic() + SECONDS
        with self._changed:
            while not self._here:
                if engine.idle:
                    return False
                assert time.monotonic() < until, "the engine neither steps nor ends"
                self._changed.wait(0.001)
            return True


class Keeper(Decoder):
    """The decoder, which keeps the latents that each picture was decoded from, and can be held."""

    def __init__(self, base: BaseModel) -> None:
        self._changed = threading.Condition()
        self._held = False
        self._under_way = 0
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        super().__init__(base)

    def decode(self, latents: torch.Tensor, told: Told) -> None:
        def hand_on(result: torch.Tensor | Exception) -> None:
            assert isinstance(result, torch.Tensor), result
            self.kept.append((result, latents))
            told(result)
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

        with self._changed:
            self._under_way += 1
        super().decode(latents, hand_on)

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._held, SECONDS)
        return super().pixels(latents)

    def hold(self, held: bool) -> None:
        """Decode nothing until told otherwise."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until everything is decoded, unless nothing is to be."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held or not self._under_way, SECONDS)

    def latents_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """What a picture that was handed on was decoded from."""
        (found,) = (latents for handed, latents in self.kept if handed is pixels)
        return found


class GatedEngine:
    """An engine with a gate and a keeper, in which every step takes one second by its clock."""

    def __init__(self, base: BaseModel, settings: EngineSettings) -> None:
        self.gate = Gate()
        self.keeper = Keeper(base)
        ticks = itertools.count()
        self.engine = Engine(
            base, settings, self.gate, decoder=self.keeper, clock=lambda: float(next(ticks))
        )

    def settle(self) -> bool:
        """Wait until nothing happens by itself any more; whether a step waits for its permit."""
        stepping = self.gate.settle(self.engine)
        self.keeper.settle()
        return stepping

    def step(self) -> None:
        """One whole step of the engine, however many calls of the denoiser it takes."""
        before = self.engine.steps_taken
        while self.settle() and self.engine.steps_taken == before:
            self.gate.permit()

    def drain(self, grace: float) -> None:
        """Let everything go, and end it."""
        self.gate.open()
        self.keeper.hold(False)
        self.engine.drain(grace)
