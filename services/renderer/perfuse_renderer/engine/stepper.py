"""One step of the denoiser for any mix of rows, in which each row fails or succeeds alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from perfuse.attach import BaseModel, Conditioning, concatenate
from perfuse.errors import ResourceExhausted
from perfuse_renderer.engine.compiled import CompiledDenoiser
from perfuse_renderer.engine.render import Place
from perfuse_renderer.engine.row import Picture, Row

Denoise = Callable[[BaseModel, torch.Tensor, torch.Tensor, Conditioning], torch.Tensor]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stepped:
    """What became of a step's rows.

    Attributes:
        advanced: rows that are one step further.
        failed: rows that are not, each with its error.
        seconds: what it took.
        lanes: of the denoiser's batch that did something.
    """

    advanced: list[Place] = field(default_factory=list)
    failed: list[tuple[Place, Exception]] = field(default_factory=list)
    seconds: float = 0.0
    lanes: int = 0

    def add(self, other: Stepped) -> None:
        """Count another part of the same step in."""
        self.advanced += other.advanced
        self.failed += other.failed
        self.seconds += other.seconds
        self.lanes = max(self.lanes, other.lanes)


class Stepper:
    """Steps rows together.

    Args:
        base: the resident base model, attached.
        denoiser: one step of it.
        max_lanes: of its batch; halved whenever the device's memory does not suffice.
        buckets: numbers of lanes that batches are filled up to, the next one each; empty to
            leave them as they are.
        clock: seconds.
    """

    def __init__(
        self,
        base: BaseModel,
        denoiser: Denoise,
        max_lanes: int,
        *,
        buckets: Sequence[int] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.max_lanes = max_lanes
        self._base = base
        self._denoise = denoiser
        self._buckets = buckets
        self._clock = clock
        self._kept: tuple[tuple[Picture, ...], Conditioning] | None = None

    @torch.no_grad()
    def step(self, places: Sequence[Place]) -> Stepped:
        """One step for rows of one size.

        A batch that does not fit into memory is stepped in halves, now and from now on. A batch
        that fails otherwise is stepped row by row, so that only the guilty fail.
        """
        rows = [place.row for place in places if place.row is not None]
        began = self._clock()
        try:
            prediction = self._predict(rows)
        except torch.OutOfMemoryError:
            return self._in_halves(places)
        except Exception as error:
            return self._one_by_one(places, error)
        stepped = Stepped(lanes=sum(row.picture.lanes for row in rows))
        offset = 0
        for place, row in zip(places, rows, strict=True):
            lanes = row.picture.lanes
            try:
                row.advance(prediction[offset : offset + lanes])
                stepped.advanced.append(place)
            except Exception as error:
                stepped.failed.append((place, error))
            offset += lanes
        _wait_for(prediction)
        stepped.seconds = self._clock() - began
        return stepped

    def _predict(self, rows: Sequence[Row]) -> torch.Tensor:
        inputs = [row.model_input() for row in rows]
        latents = torch.cat([latents for latents, _ in inputs])
        timesteps = torch.cat([timesteps for _, timesteps in inputs])
        conditioning = self._conditioning(rows)
        if missing := conditioning.rows - latents.shape[0]:
            latents = torch.cat([latents, latents[-1:].expand(missing, -1, -1, -1)])
            timesteps = torch.cat([timesteps, timesteps[-1:].expand(missing)])
        return self._denoise(self._base, latents, timesteps, conditioning)

    def _conditioning(self, rows: Sequence[Row]) -> Conditioning:
        """The batch's keys and values; kept while the same rows step together."""
        pictures = tuple(row.picture for row in rows)
        if self._kept is None or self._kept[0] != pictures:
            parts = [part for row in rows for part in row.conditioning]
            wanted = min((size for size in self._buckets if size >= len(parts)), default=0)
            parts += parts[-1:] * (wanted - len(parts))
            self._kept = (pictures, concatenate(parts))
        return self._kept[1]

    @torch.no_grad()
    def trial(self, latents: torch.Tensor, conditioning: Conditioning) -> float:
        """A step that nobody waits for, compiled if that is wanted, and the seconds that it took.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        # As a batch of rows comes: in memory of its own, timesteps as floats.
        latents = torch.cat([latents])
        timesteps = torch.zeros(len(latents), device=latents.device)
        if isinstance(self._denoise, CompiledDenoiser):
            self._denoise.prepare(latents, conditioning)
        began = self._clock()
        self._denoise(self._base, latents, timesteps, conditioning)
        _wait_for(latents)
        return self._clock() - began

    def release(self) -> None:
        """Give memory back that no batch needs at present."""
        self._kept = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _in_halves(self, places: Sequence[Place]) -> Stepped:
        self.release()
        lanes = sum(place.picture.lanes for place in places)
        if len(places) == 1:
            height, width = places[0].size
            error = ResourceExhausted(
                f"a picture of {width} × {height} does not fit into the device's memory. Ask for "
                "a smaller one"
            )
            return Stepped(failed=[(places[0], error)], lanes=lanes)
        self.max_lanes = max(1, min(self.max_lanes, lanes // 2))
        _log.warning("out of memory at %d lanes; now at most %d", lanes, self.max_lanes)
        half = (len(places) + 1) // 2
        stepped = self.step(places[:half])
        stepped.add(self.step(places[half:]))
        return stepped

    def _one_by_one(self, places: Sequence[Place], error: Exception) -> Stepped:
        if len(places) == 1:
            return Stepped(failed=[(places[0], error)], lanes=places[0].picture.lanes)
        _log.warning("a batch of %d rows failed; stepping them one by one", len(places))
        stepped = Stepped()
        for place in places:
            stepped.add(self.step([place]))
        return stepped


def _wait_for(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
