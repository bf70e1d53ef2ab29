"""A tiny base in float64, where batching must change nothing, and plans to render with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from bases import load_prepared, random_adapter

from perfuse.attach import BaseModel, ConditioningPlan, PlannedConcept, plan, unconditional

if TYPE_CHECKING:
    from .stages import Fleet, Stage


@pytest.fixture(scope="session")
def base(tiny_sd15_dir: Path) -> Iterator[BaseModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_prepared(tiny_sd15_dir, dtype=torch.float64)
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plans(base: BaseModel) -> list[ConditioningPlan]:
    """Prompts with no, one, two and three concepts."""
    adapters = {
        name: random_adapter(base, seed, category)
        for seed, (name, category) in enumerate(
            {"tom": "cat", "rex": "dog", "shades": "hat", "seat": "chair"}.items()
        )
    }

    def made(text: str, *names: str) -> ConditioningPlan:
        return plan(base, text, [PlannedConcept(name, adapters[name]) for name in names])

    return [
        made("a photo of a cat on the beach"),
        made("a photo of <tom> in the garden", "tom"),
        made("<rex> wearing <shades>", "rex", "shades"),
        made("<tom> and <rex> sitting on <seat>", "tom", "rex", "seat"),
        made("a photo of <shades>", "shades"),
    ]


@pytest.fixture(scope="session")
def nothing(base: BaseModel) -> ConditioningPlan:
    return unconditional(base)


@pytest.fixture(scope="package")
def fleet(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Replicas on a local Ray, which starts with the first test that asks for them."""
    from . import stages

    with stages.fleet(base, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(params=["local", "serve"])
def stage(request: pytest.FixtureRequest, base: BaseModel, tmp_path: Path) -> Iterator[Stage]:
    """Either backend, each ready to render."""
    from . import stages

    if request.param == "serve":
        yield request.getfixturevalue("fleet").stage()
    else:
        with stages.local(base, tmp_path) as stage:
            yield stage
