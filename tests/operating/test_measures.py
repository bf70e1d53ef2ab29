"""What three servers tell Prometheus after real work: all that is declared, and nobody's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import perfuse_registry.measures
import perfuse_renderer.measures
import perfuse_trainer.measures
from operating.conftest import ALIAS, CONCEPT, SERVICES, TENANT, Worked
from operating.names import declared
from perfuse.quotas import QUOTAS
from perfuse.serving import metrics
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "measures.md"
OF = {
    "registry": (metrics, perfuse_registry.measures),
    "trainer": (metrics, perfuse_trainer.measures),
    "renderer": (metrics, perfuse_renderer.measures),
}
STORAGE = {metrics.DATABASE_SECONDS, metrics.DATABASE_RETRIES, metrics.STORE_SECONDS}
UNITS = ("_seconds", "_bytes", "_total", "_per_second")
COUNTED = (
    *("_calls", "_runs", "_steps", "_pictures", "_lanes", "_adapters", "_entries"),
    *("_workers", "_places"),
)
LABELS = {
    "base_model": {"toybox"},
    "cache": {"plans", "texts", "concepts", "adapters", "adapter_files"},
    "code": {code.name for code in grpc.StatusCode},
    "quota": set(QUOTAS),
    "operation": {"put", "get", "stat", "delete", "check"},
    "state": {"QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED"},
    "work": {"read", "transact", "hasten"},
    "outcome": {
        *("done", "failed", "published", "postponed", "refused"),
        *("finished", "given_up", "hit", "miss"),
    },
    "method": {
        f"{service.full_name}/{method.name}"
        for file in (registry_pb2, trainer_pb2, renderer_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    },
}
"""Every label, and all the values that it may ever have; `base_model` has the operator's ids."""


def names(service: str) -> set[str]:
    kept = {name for module in OF[service] for name in declared(module)}
    return kept - STORAGE if service == "renderer" else kept


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def scrape(worked: Worked, service: str) -> tuple[str, list[Metric]]:
    with urlopen(f"http://{worked.metrics[service]}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return text, list(text_string_to_metric_families(text))


def full(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_all_that_is_declared_is_told_and_nothing_else(worked: Worked, service: str) -> None:
    _, families = scrape(worked, service)
    assert {full(family) for family in families} == names(service)
    # What happens to few is told from its first time on.
    silent = {full(family) for family in families if not family.samples}
    assert silent <= {metrics.QUOTA_REFUSALS}


def test_it_tells_of_the_work_that_was_done(worked: Worked) -> None:
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for service in SERVICES
        for family in scrape(worked, service)[1]
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return found[(name, *sorted(labels.items()))]

    renderer = perfuse_renderer.measures
    base = {"base_model": "toybox"}
    assert value(renderer.PICTURES, outcome="finished", **base) == 3
    assert 3 + 3 <= value(renderer.STEPS, **base) <= 3 * 3
    assert value(renderer.LANE_STEPS, **base) == 3 * 3 * 2
    assert value(renderer.DEVICE_SECONDS, **base) > 0
    assert value(f"{renderer.PLAN_SECONDS}_count", **base) == 1
    assert value(renderer.CACHE_LOOKUPS, cache="plans", outcome="hit") == 1
    assert value(metrics.QUOTA_REFUSALS, quota="images_per_minute") == 1
    trainer = perfuse_trainer.measures
    assert value(trainer.PUBLICATIONS, outcome="published") == 1
    assert value(trainer.RUNS_BY_STATE, state="SUCCEEDED") == 1
    assert value(trainer.WORKER_SECONDS) > 0
    registry = perfuse_registry.measures
    assert value(registry.GARBAGE_RUNS, outcome="done") == 1
    assert value(registry.INTEGRITY_FAULTS) == 0
    called = "perfuse.v1.RegistryService/CreateVersion"
    assert value(f"{metrics.RPC_SECONDS}_count", method=called, code="OK") == 1
    assert value(f"{metrics.STORE_SECONDS}_count", operation="put", outcome="done") >= 1


def test_a_name_says_whose_it_is_and_ends_in_its_unit(service: str) -> None:
    for name in names(service):
        assert re.fullmatch(rf"perfuse_(rpc|quota|database|store|{service})(_[a-z]+)+", name), name
        assert name.endswith((*UNITS, *COUNTED)), name


def test_no_label_has_what_callers_choose(worked: Worked, service: str) -> None:
    text, families = scrape(worked, service)
    for family in families:
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or value in LABELS[label], (family.name, label, value)
            assert full(family).endswith("_total") == (family.type == "counter")
    for word in (TENANT, CONCEPT, ALIAS, "canary", "local-"):
        assert word not in text


def documented() -> Iterator[tuple[str, list[str]]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `perfuse_"):
            yield cells[0].strip("`"), re.findall(r"`(\w+)`", cells[1])


def test_each_is_documented_with_its_labels(worked: Worked) -> None:
    told: dict[str, set[str]] = {}
    for service in SERVICES:
        for family in scrape(worked, service)[1]:
            labels = told.setdefault(full(family), set())
            labels |= {label for sample in family.samples for label in sample.labels} - {"le"}
    rows = dict(documented())
    assert {name: set(labels) for name, labels in rows.items()} == told
