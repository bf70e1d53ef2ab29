"""Previews and curves: part of a version, whole or not at all, and gone when it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import BLOBS, PREVIEWS
from registry import samples
from registry.served import Installation, Tenant, installed, refused
from registry.test_upload_refusals import nothing_left

CURVE = [
    wire.CurvePoint(step=0, validation_loss=0.75),
    wire.CurvePoint(step=100, validation_loss=0.1 + 0.2, similarity=-0.25),
    wire.CurvePoint(step=250, similarity=1.0),
]


def as_file(form: str, **options: Any) -> bytes:
    """A picture of 20 by 10 pixels."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((20, 10)).convert("RGB").save(file, form, **options)
    return file.getvalue()


PICTURES = {
    "image/png": as_file("PNG"),
    "image/jpeg": as_file("JPEG", quality=90),
    "image/webp": as_file("WEBP"),
}
PROGRESSIVE = as_file("JPEG", progressive=True)
LOSSLESS = as_file("WEBP", lossless=True)


def request(tenant: Tenant, seed: int = 1, *pictures: bytes, **fields: Any) -> Any:
    """An upload with these pictures."""
    sent = {"request_id": str(uuid4()), "previews": samples.previews(*pictures)} | fields
    return samples.upload(f"{tenant.name}/concepts/tom", samples.adapter(seed), **sent)


def get(tenant: Tenant, name: str) -> wire.Version:
    found: wire.Version = tenant.call.GetVersion(wire.GetVersionRequest(name=name))
    return found


def download(tenant: Tenant, name: str, which: str) -> wire.DownloadPreviewResponse:
    asked = wire.DownloadPreviewRequest(name=name, digest=which)
    answer: wire.DownloadPreviewResponse = tenant.call.DownloadPreview(asked)
    return answer


def bytes_kept(tenant: Tenant) -> float:
    answer = tenant.call.GetStorageUsage(wire.GetStorageUsageRequest(name=tenant.name))
    return next(float(each.used) for each in answer.quotas if each.quota == "bytes")


@pytest.fixture(autouse=True)
def tom(acme: Tenant) -> wire.Concept:
    return acme.concept()


class TestWithAVersion:
    def test_they_come_back_as_they_were_sent(self, acme: Tenant) -> None:
        pictures = [*PICTURES.values(), PROGRESSIVE, LOSSLESS]
        sent = request(acme, 1, *pictures, curve=CURVE)
        made = acme.call.CreateVersion(sent)
        assert list(made.curve) == CURVE
        assert made.attachment_bytes > sum(map(len, pictures))
        kinds = [*PICTURES, "image/jpeg", "image/webp"]
        assert [each.media_type for each in made.previews] == kinds
        for told, given in zip(made.previews, sent.previews, strict=True):
            assert (told.digest, told.size_bytes) == (given.digest, len(given.picture))
            assert (told.step, told.caption) == (given.step, given.caption)
            assert (told.width, told.height) == (20, 10)
            answer = download(acme, made.name, told.digest)
            assert answer.preview == told
            assert answer.picture == given.picture
        assert get(acme, f"{acme.name}/concepts/tom/versions/latest") == made
        assert acme.call.CreateVersion(sent) == made
        assert bytes_kept(acme) == made.size_bytes + made.attachment_bytes

    def test_lists_and_batches_tell_only_their_size(self, acme: Tenant) -> None:
        made = acme.call.CreateVersion(request(acme, 1, samples.picture(1), curve=CURVE))
        listed = acme.call.ListVersions(
            wire.ListVersionsRequest(parent=f"{acme.name}/concepts/tom")
        )
        batch = acme.call.BatchGetVersions(
            wire.BatchGetVersionsRequest(parent=acme.name, names=[made.name])
        )
        without = acme.call.CreateVersion(request(acme, 2))
        assert (without.attachment_bytes, len(without.previews), len(without.curve)) == (0, 0, 0)
        for (each,) in (listed.versions, batch.versions):
            assert each.attachment_bytes == made.attachment_bytes
            assert not each.previews
            assert not each.curve

    def test_a_repeated_request_with_others_is_refused(self, acme: Tenant) -> None:
        sent = request(acme, 1, samples.picture(1), samples.picture(2), curve=CURVE)
        made = acme.call.CreateVersion(sent)
        for change in ("caption", "order", "curve"):
            other = wire.CreateVersionRequest()
            other.CopyFrom(sent)
            if change == "caption":
                other.previews[0].caption = "another"
            elif change == "order":
                other.previews.sort(key=lambda each: -each.step)
            else:
                other.curve[1].similarity = 0.0
            with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
                acme.call.CreateVersion(other)
        assert acme.call.CreateVersion(sent) == made

    def test_the_same_picture_twice_is_kept_once(self, acme: Tenant) -> None:
        data = samples.picture(1)
        made = acme.call.CreateVersion(request(acme, 1, data, data))
        assert [each.step for each in made.previews] == [100, 200]
        assert made.attachment_bytes == 2 * len(data)
        assert sorted(acme.installation.stored(acme)) == sorted({made.digest, digest(data)})

    def test_judged_alone_nothing_is_kept(self, acme: Tenant) -> None:
        with nothing_left(acme):
            told = acme.call.CreateVersion(
                request(acme, 1, samples.picture(1), curve=CURVE, validate_only=True)
            )
        assert (told.name, len(told.previews), len(told.curve)) == ("", 1, 3)


def damaged() -> bytes:
    data = bytearray(samples.picture(1))
    data[-20] ^= 1
    return bytes(data)


FILES: dict[str, bytes] = {
    "no picture": b"GIF89a" + bytes(40),
    "an adapter": samples.adapter(0),
    "broken off": samples.picture(1)[:-5],
    "damaged": damaged(),
    "something behind it": samples.picture(1) + b"more",
    "a text in it": samples.picture(beside=samples.chunk(b"tEXt", b"who\0tom")),
    "an animation": samples.picture(beside=samples.chunk(b"acTL", bytes(8))),
    "no pixels": b"".join((samples.picture()[:33], samples.chunk(b"IEND", b""))),
    "too wide": samples.picture(side=2049),
    "exif in a jpeg": as_file("JPEG", exif=b"Exif\0\0II*\0"),
    "exif in a webp": as_file("WEBP", exif=b"Exif\0\0II*\0"),
    "a comment in a jpeg": as_file("JPEG", comment="who"),
    "half a jpeg": PICTURES["image/jpeg"][:-1],
    "more than a jpeg": PICTURES["image/jpeg"] + PICTURES["image/jpeg"],
    "half a webp": PICTURES["image/webp"][:-1],
}
REQUESTS: dict[str, Callable[[Any], object]] = {
    "a caption too long": lambda sent: setattr(sent.previews[0], "caption", "x" * 513),
    "too many": lambda sent: sent.previews.extend([sent.previews[0]] * 16),
    "a step below nought": lambda sent: setattr(sent.previews[0], "step", -1),
    "a picture too long": lambda sent: setattr(sent.previews[0], "picture", bytes((1 << 20) + 1)),
    "steps out of order": lambda sent: sent.curve.extend(reversed(CURVE)),
    "a step twice": lambda sent: sent.curve.extend([CURVE[0], CURVE[0]]),
    "no number": lambda sent: sent.curve.add(step=1, validation_loss=float("nan")),
    "more than alike": lambda sent: sent.curve.add(step=1, similarity=1.5),
    "too many points": lambda sent: sent.curve.extend(
        wire.CurvePoint(step=step) for step in range(257)
    ),
}


class TestRefused:
    @pytest.mark.parametrize("what", FILES)
    def test_files_that_are_no_previews(self, acme: Tenant, what: str) -> None:
        with (
            nothing_left(acme),
            refused("INVALID_ARGUMENT", field="previews[1].picture"),
        ):
            acme.call.CreateVersion(request(acme, 1, samples.picture(1), FILES[what]))

    @pytest.mark.parametrize("what", REQUESTS)
    def test_requests_beyond_a_bound(self, acme: Tenant, what: str) -> None:
        sent = request(acme, 1, samples.picture(1))
        REQUESTS[what](sent)
        with nothing_left(acme), refused("INVALID_ARGUMENT"):
            acme.call.CreateVersion(sent)

    def test_more_than_all_may_have(self, acme: Tenant) -> None:
        noise = Image.effect_noise((1000, 1000), 100)
        noise.save(file := io.BytesIO(), "PNG")
        big = file.getvalue()
        assert len(big) < 1 << 20 < 3 << 20 < 4 * len(big)
        with nothing_left(acme), refused("INVALID_ARGUMENT", field="previews"):
            acme.call.CreateVersion(request(acme, 1, *[big] * 4))

    def test_another_digest(self, acme: Tenant) -> None:
        sent = request(acme, 1, samples.picture(1))
        sent.previews[0].digest = digest(samples.picture(2))
        with nothing_left(acme), refused("INVALID_ARGUMENT", "DIGEST_MISMATCH"):
            acme.call.CreateVersion(sent)

    def test_a_digest_that_the_version_has_not(self, acme: Tenant) -> None:
        made = acme.call.CreateVersion(request(acme, 1, samples.picture(1)))
        for other in (made.digest, digest(samples.picture(2))):
            with refused("NOT_FOUND"):
                download(acme, made.name, other)


class TestGone:
    def test_they_go_with_their_versions_and_concepts_but_for_what_others_have(
        self, backend: str, tmp_path: Path
    ) -> None:
        times = {"garbage_grace": timedelta(0), "concept_retention": timedelta(0)}
        with installed(backend, tmp_path, **times) as installation:
            acme = installation.tenant()
            acme.concept()
            shared, own = samples.picture(1), samples.picture(2)
            first = acme.call.CreateVersion(request(acme, 1, shared, own, curve=CURVE))
            second = acme.call.CreateVersion(request(acme, 2, shared))
            acme.call.DeleteVersion(wire.DeleteVersionRequest(name=first.name))
            with refused("NOT_FOUND"):
                download(acme, first.name, digest(own))
            assert bytes_kept(acme) == second.size_bytes + second.attachment_bytes
            collect(installation)
            left = sorted([second.digest, digest(shared)])
            assert sorted(installation.stored(acme)) == left
            assert sorted(row.digest for row in installation.rows(BLOBS, tenant=acme.id)) == left
            assert download(acme, second.name, digest(shared)).picture == shared

            name = f"{acme.name}/concepts/tom"
            acme.call.DeleteConcept(wire.DeleteConceptRequest(name=name, force=True))
            collect(installation)
            assert installation.stored(acme) == []
            for table in (BLOBS, PREVIEWS):
                assert installation.rows(table, tenant=acme.id) == []
            assert bytes_kept(acme) == 0

    def test_damage_is_found_and_its_version_named(self, backend: str, tmp_path: Path) -> None:
        with installed(backend, tmp_path) as installation:
            acme = installation.tenant()
            acme.concept()
            made = acme.call.CreateVersion(request(acme, 1, samples.picture(1), samples.picture(2)))
            lost = made.previews[1].digest
            installation.ground.store.delete(acme.id, lost)
            with refused("DATA_LOSS"):
                download(acme, made.name, lost)
            report = installation.operator.VerifyIntegrity(wire.VerifyIntegrityRequest())
            assert (report.checked_count, report.damaged_count) == (3, 1)
            (damage,) = report.damaged
            assert (damage.digest, list(damage.versions)) == (lost, [made.name])


def collect(installation: Installation) -> None:
    """Two collections: what they find they remove."""
    for _ in range(2):
        installation.operator.CollectGarbage(wire.CollectGarbageRequest())
