"""How much an engine takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """Limits of an engine.

    Attributes:
        max_lanes: rows of the denoiser's batch; a picture with guidance takes two.
        max_begun: pictures with latents in memory, stepping or waiting between two steps.
        max_waiting: pictures in the queue, everyone's.
        max_waiting_of_tenant: pictures in the queue, one tenant's.
        pad: fill each batch up to 1, 2, 4, 8, ... lanes, so that the device meets few shapes.
        compile: compile the denoiser for every shape that is warmed up; then batches are padded.
        cuda_graphs: when compiling for CUDA, record and replay kernels.
    """

    max_lanes: int = 16
    max_begun: int = 64
    max_waiting: int = 1024
    max_waiting_of_tenant: int = 256
    pad: bool = False
    compile: bool = False
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.compile:
            object.__setattr__(self, "pad", True)

    def buckets(self) -> tuple[int, ...]:
        """The numbers of lanes that batches are filled up to: 1, 2, 4, 8, ... and the most."""
        powers = [1 << power for power in range(self.max_lanes.bit_length())]
        return tuple(sorted({*powers, self.max_lanes}))
