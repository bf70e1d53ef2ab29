"""What three servers tell after real work: every measure that is declared, traces from end to end,
and nobody's name in either.
"""

from __future__ import annotations

import re
from urllib.request import urlopen

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

import perfuse_registry.measures
import perfuse_renderer.measures
import perfuse_trainer.measures
from operating.collector import Collector, Seen
from operating.conftest import ALIAS, CONCEPT, SERVICES, TENANT, Worked
from operating.names import LABELS, declared, documented
from perfuse.serving import metrics

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


def test_each_is_documented_with_its_labels(worked: Worked) -> None:
    told: dict[str, set[str]] = {}
    for service in SERVICES:
        for family in scrape(worked, service)[1]:
            labels = told.setdefault(full(family), set())
            labels |= {label for sample in family.samples for label in sample.labels} - {"le"}
    rows = dict(documented())
    assert {name: set(labels) for name, labels in rows.items()} == told


REGISTRY = "perfuse.v1.RegistryService/"


def above(span: Seen, spans: list[Seen]) -> list[str]:
    """Names of the spans that a span is within, the nearest first."""
    by_id = {each.id: each for each in spans}
    found = []
    while span.parent in by_id:
        span = by_id[span.parent]
        found.append(span.name)
    return found


def of(spans: list[Seen], name: str) -> Seen:
    found = [span for span in spans if span.name == name]
    assert found, (name, [span.name for span in spans])
    return found[0]


def test_a_render_is_one_trace_through_to_the_download(worked: Worked) -> None:
    call = "perfuse.v1.RendererService/GenerateImages"
    alternatives = {call, "perfuse.v1.RendererService/Render"}
    wanted = {"perfuse.plan", "perfuse.render", f"{REGISTRY}DownloadAdapter"}
    spans = worked.collector.wait_for(
        worked.traces["render"], lambda found: wanted <= {span.name for span in found}
    )
    root = [
        span for span in spans if span.service == "perfuse-renderer" and span.name in alternatives
    ]
    assert len(root) == 1
    download = of(spans, f"{REGISTRY}DownloadAdapter")
    assert download.service == "perfuse-registry"
    assert above(download, spans) == ["perfuse.plan", root[0].name]
    assert above(of(spans, f"{REGISTRY}GetVersion"), spans) == ["perfuse.plan", root[0].name]
    assert above(of(spans, "perfuse.render"), spans) == [root[0].name]
    # The caller's own span is above them all, and is not ours to send.
    assert root[0].parent
    assert root[0].parent not in {span.id for span in spans}


def test_a_run_is_one_trace_from_its_making_to_its_version(worked: Worked) -> None:
    wanted = {"perfuse.train", "perfuse.publish", f"{REGISTRY}CreateVersion"}
    spans = worked.collector.wait_for(
        worked.traces["train"], lambda found: wanted <= {span.name for span in found}
    )
    made = "perfuse.v1.TrainerService/CreateTrainingRun"
    version = of(spans, f"{REGISTRY}CreateVersion")
    assert above(version, spans) == ["perfuse.publish", made]
    train = of(spans, "perfuse.train")
    assert (train.service, above(train, spans)) == ("perfuse-trainer-worker", [made])
    assert of(spans, "perfuse.publish").service == "perfuse-trainer"
    # The upload before it was the same caller's.
    assert of(spans, "perfuse.v1.TrainerService/UploadImages").service == "perfuse-trainer"


def test_nothing_private_is_in_any_span(worked: Worked) -> None:
    collector: Collector = worked.collector
    assert {span.service for span in collector.spans} == {
        *("perfuse-registry", "perfuse-trainer", "perfuse-trainer-worker", "perfuse-renderer"),
    }
    private = (TENANT, CONCEPT, ALIAS, "canary", worked.platform.connection.token)
    for span in collector.spans:
        for word in private:
            assert word not in span.raw, span.name
        assert set(span.attributes) <= {
            *("rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"),
            *("perfuse.base_model", "perfuse.pictures", "perfuse.attempt"),
        }
