"""What the client repeats and what it never does, against a server that follows a script."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving.authority import Authority

from perfuse.adapter.header import digest
from perfuse.client import (
    AsyncClient,
    Client,
    Connection,
    CurvePoint,
    NewPreview,
    Picture,
    PreviewPicture,
    RenderedImage,
    RenderSettings,
    StateChange,
    TrainingProgress,
    reading_registry,
)
from perfuse.client.publication import Publication
from perfuse.client.registry import RegistryClient
from perfuse.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PerfuseError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from perfuse.names import ConceptName, TrainingRunName
from perfuse.serving.tls import server_credentials
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

from .scripted import Refuse, Server, Tell, scripted

TOM = registry_pb2.Concept(name="tenants/acme/concepts/tom", super_category="cat")
RUN = "tenants/acme/trainingRuns/r1"


class TestUnary:
    @pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
    def test_what_did_nothing_is_repeated_as_the_same_request(self, code: str) -> None:
        with scripted(CreateConcept=[Refuse(code), Refuse(code), TOM]) as server:
            with Client(server.connection) as client:
                assert client.concepts.create("tom", super_category="cat").id == "tom"
            first, *others = server.seen["CreateConcept"]
            assert len(others) == 2
            assert first.request_id
            assert all(other == first for other in others)

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("NOT_FOUND", NotFound),
            ("PERMISSION_DENIED", PermissionDenied),
            ("DATA_LOSS", DataLoss),
            ("RESOURCE_EXHAUSTED", ResourceExhausted),
            ("INTERNAL", PerfuseError),
            ("UNKNOWN", PerfuseError),
        ],
    )
    def test_what_was_refused_is_asked_once(self, code: str, kind: type[Exception]) -> None:
        with (
            scripted(GetConcept=[Refuse(code)]) as server,
            Client(server.connection) as client,
            pytest.raises(kind, match="scripted"),
        ):
            client.concepts.get("tom")
        assert len(server.seen["GetConcept"]) == 1

    def test_a_server_that_goes_on_ending_is_unavailable_in_the_end(self) -> None:
        with (
            scripted(GetConcept=[Refuse("CANCELLED")]) as server,
            Client(server.connection) as client,
            pytest.raises(Unavailable, match="Repeat it"),
        ):
            client.concepts.get("tom")
        assert len(server.seen["GetConcept"]) == 3

    def test_time_runs_out_over_all_repetitions_together(self) -> None:
        with (
            scripted(GetConcept=[Refuse("UNAVAILABLE")]) as server,
            Client(server.connection, timeout=0.05) as client,
            pytest.raises((DeadlineExceeded, Unavailable)),
        ):
            client.concepts.get("tom")

    def test_nobody_there_is_a_sentence(self) -> None:
        nowhere = Connection("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", "acme", "perfuse_x")
        with Client(nowhere, timeout=5) as client, pytest.raises(Unavailable):
            client.concepts.get("tom")

    def test_without_a_token_nothing_is_sent(self) -> None:
        with scripted(GetConcept=[TOM]) as server:
            nobody = Connection(*(server.connection.registry,) * 3, tenant="acme")
            with Client(nobody) as client, pytest.raises(FailedPrecondition, match="PERFUSE_TOKEN"):
                client.concepts.get("tom")
            assert not server.seen["GetConcept"]

    def test_every_call_says_who_and_with_what_release(self) -> None:
        with scripted(GetConcept=[TOM]) as server, Client(server.connection) as client:
            client.concepts.get("tom")
        assert server.metadata["authorization"] == "Bearer perfuse_scripted"
        assert server.metadata["user-agent"].startswith("perfuse/")

    def test_pages_are_fetched_as_they_are_used(self) -> None:
        pages = [
            registry_pb2.ListConceptsResponse(concepts=[TOM, TOM], next_page_token="two"),
            registry_pb2.ListConceptsResponse(concepts=[], next_page_token="three"),
            registry_pb2.ListConceptsResponse(concepts=[TOM]),
        ]
        with scripted(ListConcepts=pages) as server, Client(server.connection) as client:
            found = client.concepts.list(filter='super_category = "cat"', page_size=2)
            assert next(found).id == "tom"
            assert len(server.seen["ListConcepts"]) == 1
            assert len(list(found)) == 2
        asked = server.seen["ListConcepts"]
        assert [request.page_token for request in asked] == ["", "two", "three"]
        assert {(request.filter, request.page_size) for request in asked} == {
            ('super_category = "cat"', 2)
        }

    def test_downloaded_bytes_are_compared_here_too(self) -> None:
        answer = registry_pb2.DownloadAdapterResponse(
            version=registry_pb2.Version(
                name=f"{TOM.name}/versions/1", digest="sha256:" + "0" * 64
            ),
            adapter=b"altered",
        )
        with (
            scripted(DownloadAdapter=[answer]) as server,
            Client(server.connection) as client,
            pytest.raises(DataLoss),
        ):
            client.versions.download("tom")

    def test_a_downloaded_preview_is_compared_here_too(self) -> None:
        answer = registry_pb2.DownloadPreviewResponse(picture=b"altered")
        with (
            scripted(DownloadPreview=[answer]) as server,
            Client(server.connection) as client,
            pytest.raises(DataLoss),
        ):
            client.versions.preview("tom", "sha256:" + "0" * 64)

    def test_what_is_published_with_an_adapter_goes_with_it(self, tmp_path: Path) -> None:
        made = registry_pb2.Version(name=f"{TOM.name}/versions/1", key_lock="KEY_LOCK_LOCAL")
        (tmp_path / "last.png").write_bytes(b"last")
        given = (
            NewPreview(picture=b"first", step=100, caption="a photo of a <>"),
            NewPreview(picture=tmp_path / "last.png", step=400),
        )
        curve = (CurvePoint(step=0, validation_loss=0.5), CurvePoint(step=9, similarity=-0.5))
        with scripted(CreateVersion=[made]) as server, Client(server.connection) as client:
            client.versions.publish("tom", b"adapter", previews=given, curve=curve)
        (sent,) = server.seen["CreateVersion"]
        assert [(each.picture, each.step, each.caption) for each in sent.previews] == [
            (b"first", 100, "a photo of a <>"),
            (b"last", 400, ""),
        ]
        assert [each.digest for each in sent.previews] == [digest(b"first"), digest(b"last")]
        told = registry_pb2.Version(key_lock="KEY_LOCK_LOCAL", curve=sent.curve)
        assert reading_registry.version(told).curve == curve

    def test_an_update_sends_what_is_given_and_names_it(self) -> None:
        with scripted(UpdateConcept=[TOM]) as server, Client(server.connection) as client:
            client.concepts.update("tom", description="", labels={"team": "a"}, etag="e")
        (sent,) = server.seen["UpdateConcept"]
        assert sorted(sent.update_mask.paths) == ["description", "labels"]
        assert (sent.concept.etag, dict(sent.concept.labels)) == ("e", {"team": "a"})

    def test_threads_share_a_client(self) -> None:
        with scripted(GetConcept=[TOM]) as server, Client(server.connection) as client:
            found: list[str] = []

            def ask() -> None:
                for _ in range(20):
                    found.append(client.concepts.get("tom").id)

            threads = [threading.Thread(target=ask) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert found == ["tom"] * 320


class TestAliases:
    ALIAS = registry_pb2.Alias(name=f"{TOM.name}/aliases/prod", etag="now")

    def test_pointing_makes_one_that_is_not_there(self) -> None:
        with scripted(GetAlias=[Refuse("NOT_FOUND")], CreateAlias=[self.ALIAS]) as server:
            Client(server.connection).aliases.point("tom", "prod", "tom@7")
        (sent,) = server.seen["CreateAlias"]
        assert (sent.alias_id, sent.alias.version) == ("prod", f"{TOM.name}/versions/7")

    def test_pointing_moves_from_what_it_read(self) -> None:
        with scripted(GetAlias=[self.ALIAS], UpdateAlias=[self.ALIAS]) as server:
            Client(server.connection).aliases.point("tom", "prod", "tom@7")
        (sent,) = server.seen["UpdateAlias"]
        assert sent.alias.etag == "now"

    def test_one_that_another_made_meanwhile_is_moved(self) -> None:
        with scripted(
            GetAlias=[Refuse("NOT_FOUND"), self.ALIAS],
            CreateAlias=[Refuse("ALREADY_EXISTS")],
            UpdateAlias=[self.ALIAS],
        ) as server:
            Client(server.connection).aliases.point("tom", "prod", "tom@7")
        assert len(server.seen["UpdateAlias"]) == 1


class TestUploads:
    PICTURES = (Picture("a.png", b"a" * 3_000_000), Picture("b.png", b"b", mask=b"m"))
    EMPTY = trainer_pb2.ImageSet(name="tenants/acme/imageSets/s")
    FULL = trainer_pb2.ImageSet(
        name=EMPTY.name,
        images=[
            trainer_pb2.Image(
                file_name=picture.file_name,
                digest=f"sha256:{hashlib.sha256(picture.data).hexdigest()}",
            )
            for picture in PICTURES
        ],
    )

    def test_parts_come_in_the_order_that_the_trainer_takes(self) -> None:
        with scripted(UploadImages=[self.FULL]) as server:
            Client(server.connection).image_sets.upload("s", self.PICTURES)
        (parts,) = server.seen["UploadImages"]
        assert parts[0].image_set == self.EMPTY.name
        headers = [part.header for part in parts if part.HasField("header")]
        assert [(each.file_name, each.is_mask) for each in headers] == [
            ("a.png", False),
            ("b.png", False),
            ("b.png", True),
        ]
        assert b"".join(part.chunk for part in parts) == b"a" * 3_000_000 + b"bm"
        assert headers[0].digest == self.FULL.images[0].digest

    def test_one_whose_answer_was_lost_is_not_sent_again(self) -> None:
        with scripted(UploadImages=[Refuse("UNAVAILABLE")], GetImageSet=[self.FULL]) as server:
            made = Client(server.connection).image_sets.upload("s", self.PICTURES)
        assert len(made.images) == 2
        assert len(server.seen["UploadImages"]) == 1

    def test_one_that_did_not_arrive_is_sent_again(self) -> None:
        with scripted(
            UploadImages=[Refuse("UNAVAILABLE"), self.FULL], GetImageSet=[self.EMPTY]
        ) as server:
            Client(server.connection).image_sets.upload("s", self.PICTURES)
        assert len(server.seen["UploadImages"]) == 2


def _told(sequence: int, **event: Any) -> trainer_pb2.WatchTrainingRunResponse:
    return trainer_pb2.WatchTrainingRunResponse(sequence=sequence, **event)


def _progress(sequence: int) -> trainer_pb2.WatchTrainingRunResponse:
    return _told(sequence, progress=trainer_pb2.TrainingProgress(step=sequence, steps=9))


END = _told(
    5,
    state_change=trainer_pb2.StateChange(
        state=trainer_pb2.TRAINING_RUN_STATE_SUCCEEDED, version=f"{TOM.name}/versions/1"
    ),
)


class TestWatching:
    SCRIPT: dict[str, list[Any]] = {  # noqa: RUF012
        "WatchTrainingRun": [
            Tell((_progress(1), _progress(2)), end=Refuse("UNAVAILABLE")),
            Refuse("CANCELLED"),
            Tell((_progress(3),)),  # a server that drains ends the stream early
            Tell((_progress(4), END)),
        ],
        "GetTrainingRun": [
            trainer_pb2.TrainingRun(
                name=RUN, state=trainer_pb2.TRAINING_RUN_STATE_RUNNING, last_sequence=4
            )
        ],
    }

    def check(self, server: Server, events: list[Any]) -> None:
        assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
        assert all(isinstance(event, TrainingProgress) for event in events[:4])
        assert isinstance(events[4], StateChange)
        assert (events[4].ended, events[4].state) == (True, "SUCCEEDED")
        asked = [request.after_sequence for request in server.seen["WatchTrainingRun"]]
        assert asked == [0, 2, 2, 3]

    def test_no_event_is_missed_and_none_comes_twice(self) -> None:
        with scripted(**self.SCRIPT) as server, Client(server.connection) as client:
            self.check(server, list(client.training_runs.watch("r1")))

    def test_coroutines_see_the_same(self) -> None:
        async def watch(server: Server) -> list[Any]:
            async with AsyncClient(server.connection) as client:
                return [event async for event in client.training_runs.watch("r1")]

        with scripted(**self.SCRIPT) as server:
            self.check(server, asyncio.run(watch(server)))

    def test_waiting_ends_with_the_run_as_it_ended(self) -> None:
        runs = [
            trainer_pb2.TrainingRun(name=RUN, state=state, last_sequence=sequence)
            for state, sequence in (
                (trainer_pb2.TRAINING_RUN_STATE_RUNNING, 3),
                (trainer_pb2.TRAINING_RUN_STATE_SUCCEEDED, 5),
            )
        ]
        told = Tell((_progress(3), _progress(4), END))
        with scripted(WatchTrainingRun=[told], GetTrainingRun=runs) as server:
            assert Client(server.connection).training_runs.wait("r1").state == "SUCCEEDED"
        assert [each.after_sequence for each in server.seen["WatchTrainingRun"]] == [2]

    def test_a_trainer_that_stays_away_is_told(self) -> None:
        with (
            scripted(WatchTrainingRun=[Refuse("UNAVAILABLE")]) as server,
            Client(server.connection) as client,
            pytest.raises(Unavailable),
        ):
            list(client.training_runs.watch("r1", patience=0.5))

    def test_an_event_of_a_later_release_is_passed_over(self) -> None:
        unknown = _told(1)
        seen = _told(2, preview=trainer_pb2.PreviewPicture(step=1, prompt="<>", picture=b"png"))
        with (
            scripted(WatchTrainingRun=[Tell((unknown, seen, END))]) as server,
            Client(server.connection) as client,
        ):
            first, last = client.training_runs.watch("r1")
        assert isinstance(first, PreviewPicture)
        assert (first.picture, last.sequence) == (b"png", 5)


class TestRendering:
    @staticmethod
    def image(index: int) -> renderer_pb2.RenderResponse:
        return renderer_pb2.RenderResponse(
            image=renderer_pb2.RenderedImage(
                image_index=index,
                picture=bytes([index]) * 9_000_000,  # more than gRPC takes by default
                format=renderer_pb2.PICTURE_FORMAT_PNG,
                record=renderer_pb2.RenderRecord(seed=index),
            )
        )

    def test_pictures_come_in_the_order_of_their_seeds(self) -> None:
        told = Tell((self.image(1), self.image(0)))
        with scripted(Render=[told]) as server, Client(server.connection) as client:
            found = client.render("a <tom>", seeds=(0, 1))
        assert [image.record.seed for image in found] == [0, 1]
        (sent,) = server.seen["Render"]
        assert (sent.settings.prompt, list(sent.settings.seeds)) == ("a <tom>", [0, 1])

    def test_one_that_was_cut_off_before_its_first_answer_is_asked_again(self) -> None:
        script = [Refuse("CANCELLED"), Refuse("CANCELLED"), Tell((self.image(0),))]
        with scripted(Render=script) as server, Client(server.connection) as client:
            (found,) = client.render("a <tom>", seeds=(0,))
            assert found.record.seed == 0
            first, *others = server.seen["Render"]
            assert others == [first, first]

    def test_one_that_had_an_answer_is_not(self) -> None:
        told = Tell((self.image(0),), end=Refuse("CANCELLED"))
        with scripted(Render=[told]) as server, Client(server.connection) as client:
            events = client.renderer.stream(RenderSettings(prompt="a cat"))
            assert isinstance(next(events), RenderedImage)
            with pytest.raises(Unavailable):
                next(events)
            assert len(server.seen["Render"]) == 1

    def test_a_server_that_goes_on_ending_is_unavailable_in_the_end(self) -> None:
        with scripted(Render=[Refuse("CANCELLED")] * 9) as server:
            with Client(server.connection) as client, pytest.raises(Unavailable):
                list(client.renderer.stream(RenderSettings(prompt="a cat")))
            assert len(server.seen["Render"]) == 3

    def test_leaving_the_iteration_ends_the_render(self) -> None:
        queued = renderer_pb2.RenderResponse(queued=renderer_pb2.Queued(position=3))
        told = Tell((queued, self.image(0)), hold=True)
        with scripted(Render=[told]) as server, Client(server.connection) as client:
            for event in client.renderer.stream(RenderSettings(prompt="a cat")):
                if isinstance(event, RenderedImage):
                    break
            assert server.left["Render"].wait(10)

    def test_so_it_does_for_coroutines(self) -> None:
        async def first(events: AsyncIterator[Any]) -> Any:
            try:
                async for event in events:
                    return event
            finally:
                await events.aclose()  # type: ignore[attr-defined]

        async def work(server: Server) -> bool:
            async with AsyncClient(server.connection) as client:
                assert await first(client.renderer.stream(RenderSettings(prompt="a cat")))
                return await asyncio.to_thread(server.left["Render"].wait, 10)

        queued = renderer_pb2.RenderResponse(queued=renderer_pb2.Queued(position=3))
        with scripted(Render=[Tell((queued,), hold=True)]) as server:
            assert asyncio.run(work(server))


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.concepts.get("tom"),
        lambda client: client.concepts.get("tenants/acme/concepts/tom"),
    ],
    ids=["short", "whole"],
)
def test_short_ids_are_the_callers_own(call: Callable[[Client], Any]) -> None:
    with scripted(GetConcept=[TOM]) as server, Client(server.connection) as client:
        call(client)
    assert server.seen["GetConcept"][0].name == TOM.name


class TestCredentials:
    def test_a_renewed_token_is_used_from_the_next_call_on(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        with scripted(GetConcept=[TOM]) as server:
            connection = replace(server.connection, token="", token_file=file)
            with Client(connection) as client:
                for token in ("first", "second"):
                    file.write_text(token)
                    client.concepts.get("tom")
                    assert server.metadata["authorization"] == f"Bearer {token}"

    def test_a_certificate_is_a_credential(self, tmp_path: Path) -> None:
        authority = Authority()
        authority.install(tmp_path, "server")
        cert, key = authority.issue("me", "spiffe://prod/me")
        (tmp_path / "me.pem").write_bytes(cert)
        (tmp_path / "me.key").write_bytes(key)
        files = [tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem")]
        with scripted(tls=server_credentials(*files), GetConcept=[TOM]) as server:
            trusting = replace(server.connection, ca=tmp_path / "ca.pem")
            known = replace(
                trusting,
                token="",
                client_cert=tmp_path / "me.pem",
                client_key=tmp_path / "me.key",
            )
            with Client(known) as client:
                assert client.concepts.get("tom").id == "tom"
            assert "authorization" not in server.metadata
            with Client(replace(known, token="perfuse_me")) as client:
                client.concepts.get("tom")
            assert server.metadata["authorization"] == "Bearer perfuse_me"
            with Client(trusting, timeout=1.0) as client, pytest.raises(PerfuseError):
                client.concepts.get("tom")

    def test_a_service_never_stands_in_for_a_caller_without_a_token(self) -> None:
        """It may have a certificate, by which the Registry would know it in the caller's place."""
        made = registry_pb2.Version(name="tenants/acme/concepts/tom/versions/1")

        async def ask(server: Server) -> None:
            async with RegistryClient(server.connection.registry) as registry:
                name = ConceptName("acme", "tom")
                await registry.concept(name, "")
                assert server.metadata["authorization"] == ""
                run = TrainingRunName("acme", "first")
                work = Publication(name, b"", run, "6f1f2f9e-52bb-4a34-8d5c-2a2f3a3c8d11")
                await registry.publish(work, "Bearer perfuse_delegate")
                assert server.metadata["authorization"] == "Bearer perfuse_delegate"
                # A delegate acts as itself, and may be known by its certificate alone.
                await registry.publish(work, "")
                assert "authorization" not in server.metadata
                assert server.metadata["perfuse-tenant"] == "acme"

        with scripted(GetConcept=[TOM], CreateVersion=[made]) as server:
            asyncio.run(ask(server))
