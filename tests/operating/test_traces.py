"""One trace from a caller through all services, across the queue too, and nothing private in it."""

from __future__ import annotations

from operating.collector import Collector, Seen
from operating.conftest import ALIAS, CONCEPT, TENANT, Worked

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
