"""Fixtures shared by the whole suite: the tiny base models of `bases`, made once a session.

The directories are shared; a test that writes into one takes a copy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from platform_up import Platform

    from perfuse.attach import BaseModel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_sd15_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bases import save_sd15

    return save_sd15(tmp_path_factory.mktemp("bases") / "sd15")


@pytest.fixture(scope="session")
def tiny_sd21_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bases import save_sd21

    return save_sd21(tmp_path_factory.mktemp("bases") / "sd21")


@pytest.fixture(scope="session")
def tiny_sdxl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bases import save_sdxl

    return save_sdxl(tmp_path_factory.mktemp("bases") / "sdxl")


@pytest.fixture(scope="session")
def tiny_sd15(tiny_sd15_dir: Path) -> BaseModel:
    from bases import load_prepared

    return load_prepared(tiny_sd15_dir)


@pytest.fixture(scope="session")
def tiny_sd21(tiny_sd21_dir: Path) -> BaseModel:
    from bases import load_prepared

    return load_prepared(tiny_sd21_dir)


@pytest.fixture(scope="session")
def tiny_sdxl(tiny_sdxl_dir: Path) -> BaseModel:
    from bases import load_prepared

    return load_prepared(tiny_sdxl_dir)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """What `perfuse up` runs; shared, so that nobody ends it."""
    from platform_up import running

    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform
