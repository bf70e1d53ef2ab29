"""Shared by the whole suite: the order of its files, and the tiny base models of `bases`.

The models' directories are shared; a test that writes into one takes a copy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from platform_up import Platform
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

    from perfuse.attach import BaseModel

# Two processes test on two cores: more threads would wait for one another, and tiny models take
# longer on two than on one. Before torch is imported, and for every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

LONG = (
    "trainer/test_trainer_process.py",
    "trainer/test_ray_deaths.py",
    "renderer/test_renderer_process.py",
    "renderer/test_compiled.py",
    "renderer/test_serve_backend.py",
    "cli/test_commands.py",
    "deploy/test_running.py",
    "trainer/test_deaths.py",
    "trainer/test_packing.py",
    "bench/test_renderer_bench.py",
    "operating/test_telling.py",
    "trainer/test_command.py",
    "renderer/test_engine_machine.py",
    "trainer/test_loop.py",
    "trainer/test_worker.py",
    "renderer/test_memory.py",
    "security/test_leaks.py",
    "toybox/test_base.py",
    "bench/test_trainer_bench.py",
)
"""Files of half a minute and more: they begin first, so that none is left running alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort whole groups of files, the long ones first; keep the order within each."""
    from together import place

    here = Path(__file__).parent
    order = {here / name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(place(item.path), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Files that share servers go to one process."""
    from together import Together

    return Together(config, log)


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
