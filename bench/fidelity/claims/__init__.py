"""The paper's nine claims and three of ours, a module each.

A module has `NUMBER`, `TITLE`, `STATEMENT` (the claim in one sentence), `RULE` (when it
holds here), `measure(lab)` (a record of JSON with `verdicts`, name → verdict and figures),
`draw(record)` (its plot) and `sheet(lab)` (pictures to look at, or None).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from bench.fidelity.claims import (
    blends,
    company,
    halves,
    locks,
    one_picture,
    over_training,
    peers,
    remainder,
    settling,
    sizes,
    spanning,
    weighing,
)

CLAIMS: Sequence[ModuleType] = (
    spanning,
    locks,
    peers,
    blends,
    one_picture,
    weighing,
    over_training,
    halves,
    sizes,
    remainder,
    company,
    settling,
)
"""In the order of their numbers; each is cheap after those before it."""
