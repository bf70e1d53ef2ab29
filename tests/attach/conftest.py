"""Every law of attaching holds for each kind of base model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bases import load_prepared

from perfuse.attach import BaseModel


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On models this small a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


KINDS = ("sd15", "sd21", "sdxl")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def directory(kind: str, request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(f"tiny_{kind}_dir")
    return path


@pytest.fixture
def base(kind: str, request: pytest.FixtureRequest) -> BaseModel:
    found: BaseModel = request.getfixturevalue(f"tiny_{kind}")
    return found


@pytest.fixture(scope="session")
def _double_cache() -> dict[Path, BaseModel]:
    return {}


@pytest.fixture
def double_base(directory: Path, _double_cache: dict[Path, BaseModel]) -> BaseModel:
    """A base in float64, where rounding cannot hide a wrong formula."""
    if directory not in _double_cache:
        _double_cache[directory] = load_prepared(directory, dtype=torch.float64)
    return _double_cache[directory]
