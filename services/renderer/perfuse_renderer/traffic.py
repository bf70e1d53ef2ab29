"""What travels between the front door and a replica, which may be on another machine.

A plan travels once to every machine, as an object of Ray's store that renders refer to by digest;
what goes with each render is small. Events come back several at once, as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from perfuse.attach import ConditioningPlan
from perfuse.errors import PerfuseError
from perfuse_renderer.engine.render import Event
from perfuse_renderer.engine.row import Picture


@dataclass(frozen=True, slots=True)
class Sketch:
    """A `Picture` whose plans are named by their digests."""

    plan: str
    negative: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    height: int
    width: int

    @classmethod
    def of(cls, picture: Picture) -> Sketch:
        """The sketch of a picture."""
        return cls(
            picture.plan.digest,
            picture.negative.digest,
            picture.seed,
            picture.steps,
            picture.guidance,
            picture.scheduler,
            picture.height,
            picture.width,
        )

    def picture(self, plans: Mapping[str, ConditioningPlan]) -> Picture:
        """The picture, with its plans."""
        return Picture(
            plans[self.plan],
            plans[self.negative],
            self.seed,
            self.steps,
            self.guidance,
            self.scheduler,
            self.height,
            self.width,
        )


@dataclass(frozen=True, slots=True)
class Parcel:
    """A render as a replica gets it.

    Attributes:
        tenant: on whose behalf.
        sketches: its pictures.
        plans: digest → reference into Ray's store, for every plan that the sketches name.
        seconds: until the deadline, when it was sent; clocks differ between machines.
        preview_every: steps between previews; 0 for none.
        front_door: that sent it.
        number: of those that this front door sent, counted from 1.
        lease: seconds that the render goes on without a word of the front door's.
    """

    tenant: str
    sketches: tuple[Sketch, ...]
    plans: Mapping[str, Any]
    seconds: float | None
    preview_every: int
    front_door: str
    number: int
    lease: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a front door still waits for. It says so every few seconds, as long as it is there.

    Attributes:
        front_door: whose.
        newest: number of the last parcel that it had sent; nothing is said of later ones.
        numbers: of parcels whose renders have not ended.
    """

    front_door: str
    newest: int
    numbers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Refused:
    """A render was not taken in. Errors travel as values: raised, Ray would wrap them in traces."""

    error: PerfuseError


@dataclass(frozen=True, slots=True)
class Condition:
    """How a replica is.

    Attributes:
        process: its id, on its machine.
        steps_taken: of the denoiser, ever.
        running, waiting: pictures.
        plans_fetched: from the store, ever.
    """

    process: int
    steps_taken: int
    running: int
    waiting: int
    plans_fetched: int


Message = Event | Refused


def plan_in(
    plan: ConditioningPlan, dtype: torch.dtype, device: str | torch.device
) -> ConditioningPlan:
    """The plan with what the denoiser reads copied to a dtype and device.

    Copied in any case, so that a tensor that is a view takes none of its neighbours along.
    """

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, dtype, copy=True)

    return replace(
        plan,
        keys=tuple(map(moved, plan.keys)),
        values=tuple(map(moved, plan.values)),
        encodings=moved(plan.encodings),
        pooled=None if plan.pooled is None else moved(plan.pooled),
    )


def plan_bytes(plan: ConditioningPlan) -> int:
    """What a plan's tensors take."""
    tensors = [*plan.keys, *plan.values, plan.encodings]
    if plan.pooled is not None:
        tensors.append(plan.pooled)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
