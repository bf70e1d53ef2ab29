"""One installation of each kind for the whole run, and a fresh tenant for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog

if TYPE_CHECKING:
    from pathlib import Path

    from perfuse.attach import BaseModel
    from trainer.served import Installation, Tenant
    from trainer.workshop import Workshop

BACKENDS = ("sqlite+directory", "postgresql+s3")


@pytest.fixture(scope="package", autouse=True)
def faults_alone_are_logged() -> Iterator[None]:
    """Servers in this process log each call, on threads of their own and often between tests."""

    def drop(logger: object, level: str, event: dict[str, Any]) -> dict[str, Any]:
        if level not in {"error", "critical"}:
            raise structlog.DropEvent
        return event

    before = structlog.get_config()
    plain = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=[drop, *plain])
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session", params=BACKENDS)
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    # Most suites here train and need no server, nor the time to import one.
    from trainer.served import trainer_installation

    folder = tmp_path_factory.mktemp("installation")
    with trainer_installation(request.param, folder) as found:
        yield found


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """For tests that need an installation to themselves."""
    return str(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workshop]:
    """The Trainer's rules and workers, without a server."""
    from trainer.workshop import workshop

    with workshop(request.param, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def base(tiny_sd15_dir: Path) -> Iterator[BaseModel]:
    """What workers train on here, on one thread, since tests run side by side."""
    import torch
    from bases import load_prepared

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_prepared(tiny_sd15_dir)
    torch.set_num_threads(before)


@pytest.fixture
def acme(installation: Installation) -> Tenant:
    return installation.tenant()


@pytest.fixture
def rival(installation: Installation) -> Tenant:
    """Another tenant of the same installation."""
    return installation.tenant()
