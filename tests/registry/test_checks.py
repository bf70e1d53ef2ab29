"""Questions about versions: does one fit a base model, can several be blended?"""

from __future__ import annotations

import math
from typing import Any

import pytest

from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.catalog.checks import TOO_CLOSE
from registry import samples
from registry.served import BASE_MODEL, Client, Installation, Tenant, refused

WIDTH = samples.WIDTH
OTHER = "sha256:" + digest(b"another base model of the same shape")[7:]


@pytest.fixture(scope="module")
def alike(installation: Installation) -> str:
    """A base model of the same shape as `BASE_MODEL`, with other weights."""
    request = wire.CreateBaseModelRequest(
        base_model_id="alike", base_model=samples.base_model(OTHER)
    )
    return str(installation.operator.CreateBaseModel(request).name)


def direction(*values: float) -> list[float]:
    return [*values, *[0.0] * (WIDTH - len(values))]


def turned(cosine: float) -> list[float]:
    """A target input at this cosine to `direction(1.0)`."""
    return direction(cosine, math.sqrt(1.0 - cosine**2))


class TestCompatibility:
    def check(self, tenant: Tenant, version: str, base: str) -> wire.CheckCompatibilityResponse:
        answer: wire.CheckCompatibilityResponse = tenant.call.CheckCompatibility(
            wire.CheckCompatibilityRequest(version=version, base_model=base)
        )
        return answer

    def test_a_version_fits_what_it_was_trained_on(self, acme: Tenant) -> None:
        acme.concept()
        made = acme.version()
        acme.alias("prod", made)
        for which in ("1", "latest", "prod"):
            answer = self.check(acme, f"{acme.name}/concepts/tom/versions/{which}", BASE_MODEL)
            assert answer.compatible
            assert not answer.differences

    def test_of_another_fingerprint_nothing_fits(self, acme: Tenant, alike: str) -> None:
        acme.concept()
        answer = self.check(acme, acme.version().name, alike)
        assert not answer.compatible
        (difference,) = answer.differences  # the shapes are the same
        for told in (BASE_MODEL, samples.FINGERPRINT, alike, OTHER):
            assert told in difference
        # It is the version that is asked, not the base model: the other way round as well.
        assert not self.check(acme, acme.version(fingerprint=OTHER).name, BASE_MODEL).compatible

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"architecture": "sd-16"}, ["architecture", "sd-12", "sd-16"]),
            ({"conditioning_width": 16}, ["conditioning width", "12", "16"]),
            ({"layers": [{"name": "mid.attn2", "width": 4}]}, ["layers", "2 and 3", "24", "28"]),
            ({"encoders": [{"name": "second", "width": 4}]}, ["encoders", "1 and 2", "16"]),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )  # fmt: skip
    def test_every_difference_is_told(
        self, acme: Tenant, operator: Client, changes: dict[str, Any], words: list[str]
    ) -> None:
        described = samples.base_model(digest(f"{acme.id}".encode()))
        described.MergeFrom(wire.BaseModel(**changes))
        request = wire.CreateBaseModelRequest(base_model_id=acme.id, base_model=described)
        other = operator.CreateBaseModel(request).name
        acme.concept()
        answer = self.check(acme, acme.version().name, other)
        assert not answer.compatible
        assert len(answer.differences) == 2
        assert all(word in answer.differences[1] for word in words), answer.differences

    def test_what_is_not_there_is_not_found(self, acme: Tenant) -> None:
        acme.concept()
        made = acme.version()
        for version, base in ((f"{made.name}2", BASE_MODEL), (made.name, "baseModels/none")):
            with refused("NOT_FOUND") as caught:
                self.check(acme, version, base)
            assert caught.value.resource in (version, base)


class TestBlend:
    @pytest.fixture(autouse=True)
    def concepts(self, acme: Tenant) -> None:
        for concept_id in ("tom", "tim", "ria"):
            acme.concept(concept_id)

    def check(self, tenant: Tenant, *names: str) -> wire.CheckBlendResponse:
        answer: wire.CheckBlendResponse = tenant.call.CheckBlend(
            wire.CheckBlendRequest(parent=tenant.name, versions=names)
        )
        return answer

    def test_directions_apart_can_be_blended(self, acme: Tenant) -> None:
        names = [
            acme.version(target_input=direction(1.0)).name,
            acme.version(concept_id="tim", target_input=direction(-3.0, 4.0)).name,
            acme.version(concept_id="ria", target_input=direction(0.0, 0.0, 2.0)).name,
        ]
        answer = self.check(acme, *names)
        assert answer.blendable
        assert not answer.problems
        pairs = {(pair.first, pair.second): pair.cosine for pair in answer.pairs}
        assert pairs.keys() == {(names[0], names[1]), (names[0], names[2]), (names[1], names[2])}
        assert pairs[names[0], names[1]] == pytest.approx(-0.6, abs=1e-12)
        assert pairs[names[0], names[2]] == pytest.approx(0.0, abs=1e-12)
        assert not any(pair.too_close for pair in answer.pairs)

    def test_one_can_be_blended_with_nothing(self, acme: Tenant) -> None:
        answer = self.check(acme, acme.version().name)
        assert answer.blendable
        assert not answer.pairs

    @pytest.mark.parametrize(
        ("target_input", "too_close"),
        [
            (direction(1.0), True),
            (direction(0.25), True),  # a length is no direction
            (direction(-1.0), True),  # the opposite spans the same line
            (turned(0.99999), True),
            (turned(0.9997), False),
            (turned(0.99), False),  # as of encodings of different words
        ],
        ids=["same", "shorter", "opposite", "nearly", "far enough", "words"],
    )
    def test_one_direction_cannot(
        self, acme: Tenant, target_input: list[float], too_close: bool
    ) -> None:
        names = [
            acme.version(target_input=direction(1.0)).name,
            acme.version(concept_id="tim", target_input=target_input).name,
        ]
        answer = self.check(acme, *names)
        (pair,) = answer.pairs
        assert pair.too_close is too_close
        assert (abs(pair.cosine) >= TOO_CLOSE) is too_close
        assert answer.blendable is not too_close
        assert len(answer.problems) == too_close
        for problem in answer.problems:
            assert all(name in problem for name in names)

    def test_different_base_models_cannot(self, acme: Tenant, alike: str) -> None:
        first = acme.version(target_input=direction(1.0)).name
        second = acme.version(concept_id="tim", target_input=direction(1.0), fingerprint=OTHER).name
        answer = self.check(acme, first, second)
        assert not answer.blendable
        (problem,) = answer.problems
        assert alike.partition("/")[2] in problem
        assert not answer.pairs  # there is no one metric to compare them in

    def test_a_concept_enters_once(self, acme: Tenant) -> None:
        first = acme.version(target_input=direction(1.0)).name
        second = acme.version(target_input=direction(0.0, 1.0)).name
        answer = self.check(acme, first, second)
        assert not answer.blendable
        (problem,) = answer.problems
        assert f"{acme.name}/concepts/tom" in problem
        # Nor by two names of one version.
        again = self.check(acme, second, f"{acme.name}/concepts/tom/versions/latest")
        assert not again.blendable
        (pair,) = again.pairs
        assert (pair.first, pair.second, pair.too_close) == (second, second, True)
        with refused("INVALID_ARGUMENT", field="versions"):
            self.check(acme, first, first)

    def test_one_that_is_missing_fails_the_call(self, acme: Tenant) -> None:
        made = acme.version().name
        with refused("NOT_FOUND") as caught:
            self.check(acme, made, f"{acme.name}/concepts/tim/versions/1")
        assert caught.value.resource == f"{acme.name}/concepts/tim/versions/1"

    def test_bytes_that_are_lost_are_no_verdict(self, acme: Tenant) -> None:
        made = acme.version(seed=3)
        acme.installation.ground.store.delete(acme.id, made.digest)
        with refused("DATA_LOSS"):
            self.check(acme, made.name)
