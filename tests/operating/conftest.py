"""A whole platform that tells its measures and its traces, and that has worked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import platform_up
import ports
import pytest
from opentelemetry.sdk.trace import TracerProvider
from trainer.workshop import picture

from operating.collector import Collector, collecting
from perfuse.client import Client, Picture, TrainingSettings
from perfuse.errors import ResourceExhausted
from perfuse.v1 import registry_pb2
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub

TENANT, CONCEPT, ALIAS = "canary-tenant", "canary-concept", "canary-alias"
PROMPT = f"a canaryword photo of <{CONCEPT}@{ALIAS}>"
SERVICES = ("registry", "trainer", "renderer")


@dataclass
class Worked:
    """A platform that taught a concept and rendered it.

    Attributes:
        platform: running.
        collector: where its spans went.
        metrics: service → address of its measures.
        traces: what was done → the trace that the caller was in.
    """

    platform: platform_up.Platform
    collector: Collector
    metrics: dict[str, str]
    traces: dict[str, str] = field(default_factory=dict)
    version: str = ""


@pytest.fixture(scope="session")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    first = ports.free_ports(3)
    metrics = {name: f"127.0.0.1:{first + place}" for place, name in enumerate(SERVICES)}
    environment = {
        f"PERFUSE_{name.upper()}_METRICS_ADDRESS": address for name, address in metrics.items()
    }
    with collecting() as collector:
        environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        home = tmp_path_factory.mktemp("operating")
        quotas = tmp_path_factory.mktemp("quotas") / "quotas.toml"
        quotas.write_text("[defaults]\nimages_per_minute = 9\n")
        environment["PERFUSE_RENDERER_QUOTA_FILE"] = str(quotas)
        with platform_up.running(home, "--tenant", TENANT, environment=environment) as platform:
            worked = Worked(platform, collector, metrics)
            _work(worked)
            yield worked


def _work(worked: Worked) -> None:
    tracer = TracerProvider().get_tracer("an app")

    with Client(worked.platform.connection) as perfuse:
        with tracer.start_as_current_span("train") as span:
            worked.traces["train"] = f"{span.get_span_context().trace_id:032x}"
            run = perfuse.train(
                CONCEPT,
                [Picture(f"{index}.png", picture(index, 64)) for index in range(2)],
                super_category="cat",
                settings=TrainingSettings(steps=4, batch=2, validate_every=2),
            )
        done = perfuse.training_runs.wait(run.name)
        assert done.state == "SUCCEEDED", done
        worked.version = done.version
        perfuse.aliases.point(CONCEPT, ALIAS, done.version)
        with tracer.start_as_current_span("render") as span:
            worked.traces["render"] = f"{span.get_span_context().trace_id:032x}"
            perfuse.render(PROMPT, seeds=[1, 2], steps=3)
        perfuse.render(PROMPT, seeds=[3], steps=3)
        with pytest.raises(ResourceExhausted):
            perfuse.render(PROMPT, count=10, steps=3)
    # What only an operator does, by the stubs.
    with grpc.insecure_channel(worked.platform.connection.registry) as channel:
        stub: Any = RegistryServiceStub(channel)  # type: ignore[no-untyped-call]
        known = (("authorization", f"Bearer {worked.platform.connection.token}"),)
        stub.VerifyIntegrity(registry_pb2.VerifyIntegrityRequest(), metadata=known, timeout=60)
        stub.CollectGarbage(registry_pb2.CollectGarbageRequest(), metadata=known, timeout=60)
