"""Fixtures shared by the whole suite: the tiny base models of `bases`, written once a session."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
