"""What a live platform shows too seldom: lost races, failed runs, refusals with a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from client.scripted import Refuse, Server, Tell, scripted

from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

from .shell import Shell

CONCEPT = "tenants/acme/concepts/tom"
RUN = "tenants/acme/trainingRuns/r1"


def shell(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell(server.connection, monkeypatch, capsys)


@pytest.mark.parametrize(
    "script",
    [
        {
            "GetAlias": [
                registry_pb2.Alias(
                    name=f"{CONCEPT}/aliases/prod", version=f"{CONCEPT}/versions/1", etag="e"
                )
            ],
            "UpdateAlias": [Refuse("ABORTED", "the etag is another one")],
        },
        {
            "GetAlias": [Refuse("NOT_FOUND")],
            "CreateAlias": [Refuse("ALREADY_EXISTS")],
        },
    ],
    ids=["moved", "made"],
)
def test_a_promotion_that_lost_a_race_says_so_and_moves_nothing(
    script: dict[str, list[object]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = registry_pb2.Version(name=f"{CONCEPT}/versions/7")
    with scripted(GetVersion=[version], **script) as server:
        perfuse = shell(server, monkeypatch, capsys)
        told = perfuse("promote", "tom@7", "prod")
        assert told.code == 1
        assert "someone else moved tom@prod" in told.err
        assert "perfuse alias history tom prod" in told.err
        assert perfuse("promote", "tom@7", "prod", "--json").refusal["reason"] == "ETAG_MISMATCH"


def failed_run() -> trainer_pb2.TrainingRun:
    return trainer_pb2.TrainingRun(
        name=RUN,
        concept=CONCEPT,
        state=trainer_pb2.TRAINING_RUN_STATE_FAILED,
        error=trainer_pb2.TrainingRunError(
            reason="TRAINING_DIVERGED", message="the loss was not finite at step 3"
        ),
        last_sequence=2,
    )


def test_a_failed_run_ends_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = failed_run()
    ended = trainer_pb2.StateChange(state=run.state, error=run.error)
    events = Tell((trainer_pb2.WatchTrainingRunResponse(sequence=2, state_change=ended),))
    with scripted(GetTrainingRun=[run], WatchTrainingRun=[events]) as server:
        perfuse = shell(server, monkeypatch, capsys)
        told = perfuse("runs", "watch", "r1")
        assert told.code == 6
        assert told.out == ""
        assert "failed: the loss was not finite at step 3" in told.err
        lines = perfuse("runs", "watch", "r1", "--json")
        assert lines.code == 6
        assert lines.lines[-1]["run"]["error"]["reason"] == "TRAINING_DIVERGED"
        refusal = json.loads(lines.err)
        assert refusal["reason"] == "TRAINING_DIVERGED"
        assert refusal["resource"] == RUN


def test_what_was_rendered_before_a_render_broke_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = renderer_pb2.RenderResponse(
        image=renderer_pb2.RenderedImage(
            image_index=0,
            picture=b"a picture",
            format=renderer_pb2.PICTURE_FORMAT_PNG,
            record=renderer_pb2.RenderRecord(seed=5),
        )
    )
    told = Tell((done,), end=Refuse("RESOURCE_EXHAUSTED", "the queue is full"))
    with scripted(Render=[told]) as server:
        perfuse = shell(server, monkeypatch, capsys)
        answer = perfuse("render", "a cat", "-n", "2", "-o", str(tmp_path))
    assert answer.code == 1
    assert "the queue is full" in answer.err
    assert (tmp_path / "a-cat-5.png").read_bytes() == b"a picture"
