"""What a step of the denoiser takes, as a function of the lanes in its batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfuse_renderer.engine.pace import Pace

_SIZE = (1, 1)
"""All pictures are of one size here; which one is in the step times."""


@dataclass(frozen=True)
class Assumed:
    """An accelerator's: seconds to launch a step, and seconds for each lane of it.

    Attributes:
        launch: seconds that no lane can shorten.
        lane: seconds; the operations of a lane divided by those that the device does in a second.
    """

    launch: float
    lane: float

    def seconds(self, lanes: int) -> float:
        """Of a step with so many lanes."""
        return self.launch + self.lane * lanes


class Tabled:
    """As measured at some numbers of lanes; between and beyond them as the engine reckons.

    Args:
        table: lanes → seconds.
    """

    def __init__(self, table: Mapping[int, float]) -> None:
        self.table = dict(table)
        self._pace = Pace()
        for lanes, seconds in table.items():
            self._pace.learn(_SIZE, lanes, seconds)

    def seconds(self, lanes: int) -> float:
        """Of a step with so many lanes."""
        found = self._pace.step_seconds(_SIZE, lanes)
        if found is None:
            raise ValueError("no step was measured; give at least one number of lanes")
        return found


StepTimes = Assumed | Tabled


def pictures_per_second(times: StepTimes, max_lanes: int, lanes: int, steps: float) -> float:
    """What full batches yield.

    Args:
        times: of steps.
        max_lanes: of a batch.
        lanes: of a picture.
        steps: of a picture, on average.
    """
    return (max_lanes // lanes) / (steps * times.seconds(max_lanes))
