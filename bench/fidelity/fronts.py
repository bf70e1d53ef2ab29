"""Sweeps: likeness and text similarity of one way of learning over a knob of rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.fidelity import companions
from bench.fidelity.bootstrap import Array, Bootstrap, interval
from bench.fidelity.lab import Lab, Setting
from bench.fidelity.lessons import Lesson
from bench.fidelity.rendering import Rendering
from perfuse_toybox.concepts import Concept

SHOWN = (
    "likeness",
    "text",
    "likeness_shown",
    "image",
    "image_shown",
    "scene",
    "others",
    "variety",
    "own/kind",
    "own/primary",
    "own/pattern",
    "own/marking",
    *companions.MEASURES,
)
"""The measures of every point in the results."""


@dataclass(frozen=True)
class Front:
    """A sweep.

    Attributes:
        name: In tables and plots.
        knobs: The values swept.
        means: Measure → `[S, 1 + resamples]`.
    """

    name: str
    knobs: tuple[float, ...]
    means: dict[str, Array]

    @property
    def pair(self) -> tuple[Array, Array]:
        """Likeness and text similarity, as `bootstrap.ahead` takes them."""
        return self.means["likeness"], self.means["text"]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "knobs": list(self.knobs),
            **{
                name: [interval(samples) for samples in self.means[name]]
                for name in SHOWN
                if name in self.means
            },
        }


def sweep(
    lab: Lab,
    name: str,
    lesson: Lesson | None,
    rendering: Rendering,
    knob: str,
    values: Sequence[float],
    concepts: Sequence[Concept] | None = None,
) -> Front:
    """Measure one way of learning at every value of `bias` or `scale`."""
    settings: list[Setting] = [(lesson, replace(rendering, **{knob: value})) for value in values]
    arrays = lab.arrays(settings, concepts)
    boot = lab.bootstrap(len(concepts) if concepts else None)
    return front(name, values, arrays, boot)


def front(name: str, values: Sequence[float], arrays: dict[str, Array], boot: Bootstrap) -> Front:
    """Summed up over concepts and pictures."""
    means = {
        measure: np.atleast_2d(boot.means(arrays[measure]))
        for measure in SHOWN
        if measure in arrays
    }
    return Front(name, tuple(values), means)


def beside(lab: Lab, name: str, values: Sequence[float], settings: Sequence[Setting]) -> Front:
    """Measure settings of a knob's values, and what they do to companions."""
    return front(name, values, lab.arrays(settings) | lab.beside(settings), lab.bootstrap())


def alone(lab: Lab, concepts: Sequence[Concept] | None = None) -> Front:
    """The base by super-categories: where every front would end if nothing were learned."""
    arrays = lab.arrays([(None, Rendering())], concepts)
    boot = lab.bootstrap(len(concepts) if concepts else None)
    return front("base alone", (0.0,), arrays, boot)


def nearest(values: Sequence[float], wanted: float) -> float:
    """The value of a form's sweep that comes next to the wanted one."""
    return min(values, key=lambda value: abs(value - wanted))
