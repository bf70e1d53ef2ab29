"""The examples, as a reader would run them, against a running platform; and the plain protos."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perfuse.client import Client
from perfuse.client.connection import LEFT_BY_UP
from perfuse_toybox.concepts import TOM

if TYPE_CHECKING:
    from platform_up import Platform

ROOT = Path(__file__).parent.parent


def run(platform: Platform, file: str, *arguments: str) -> str:
    """What a script prints, with nothing said about the platform but its home."""
    environment = {name: value for name, value in os.environ.items() if "PERFUSE" not in name}
    done = subprocess.run(
        [sys.executable, str(ROOT / file), *arguments],
        env=environment | {"PERFUSE_HOME": str(platform.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def taught(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A concept that an example has taught, in few steps."""
    folder = tmp_path_factory.mktemp("pictures")
    TOM.write_pictures(folder, count=2)
    said = run(platform, "examples/train_concept.py", "example-tom", "cat", str(folder), "3")
    assert "versions/1 is prod now" in said
    return "example-tom"


def test_an_example_teaches_and_promotes(platform: Platform, taught: str) -> None:
    with Client(platform.connection) as perfuse:
        alias = perfuse.aliases.get(taught, "prod")
        version = perfuse.versions.get(f"{taught}@prod")
        assert alias.version == version.name
        assert version.training_run
        (run,) = [each for each in perfuse.training_runs.list() if taught in each.concept]
        assert (run.state, run.step, run.version) == ("SUCCEEDED", 3, version.name)
        # Whoever waits for a run that has ended already is told so at once.
        assert perfuse.training_runs.wait(run.name).version == version.name


def test_an_example_renders(platform: Platform, taught: str, tmp_path: Path) -> None:
    said = run(platform, "examples/render.py", f"a <{taught}@prod> in the snow", str(tmp_path))
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        str(tmp_path / f"seed-{seed}.png") for seed in (1, 2)
    ]
    assert f"{taught}/versions/1 (sha256:" in said
    assert said.count("30 steps, guidance 3\n") == 2
    assert (tmp_path / "seed-1.png").read_bytes() != (tmp_path / "seed-2.png").read_bytes()


def test_an_example_sweeps(platform: Platform, taught: str, tmp_path: Path) -> None:
    run(platform, "examples/sweep.py", f"a <{taught}> on the beach", taught, str(tmp_path))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"bias-0.{tenth}.png" for tenth in range(3, 10)]
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) > 1


def test_the_protos_alone_are_enough(platform: Platform, tmp_path: Path) -> None:
    TOM.write_pictures(tmp_path, count=2)
    to = platform.connection
    said = run(
        platform,
        "tests/client/plain_client.py",
        *(to.registry, to.trainer, to.renderer, to.tenant, to.token, str(tmp_path)),
    )
    assert said.strip() == f"tenants/{to.tenant}/concepts/plain-stub/versions/1"


def test_what_an_example_is_refused_is_a_sentence(platform: Platform) -> None:
    with pytest.raises(AssertionError, match="does not exist, or is not yours to see"):
        run(platform, "examples/render.py", "a <nobody>", "nowhere")


def test_up_leaves_all_that_callers_need(platform: Platform) -> None:
    left = platform.home / LEFT_BY_UP
    assert left.stat().st_mode & 0o077 == 0
    with Client(platform.connection) as perfuse:
        (base,) = perfuse.base_models.list()
        (resident,) = perfuse.renderer.status().base_models
    assert (base.name, base.fingerprint) == (resident.name, resident.fingerprint)
