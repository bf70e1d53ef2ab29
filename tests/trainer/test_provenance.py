"""Whether a run learned from a picture: provable without the picture, and by nobody else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from registry.served import refused

from perfuse.adapter.header import digest
from perfuse.errors import FailedPrecondition
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.provenance import Provenance, Secret, read_secrets, tenant_key
from perfuse_trainer.tables import RUNS
from trainer.test_run_calls import Calls, Desk, desk  # noqa: F401

OLD, NEW = Secret("old", b"o" * 32), Secret("new", b"n" * 32)
ONE, TWO = digest(b"one"), digest(b"two")


def test_a_tenants_key_is_hkdf_of_the_secret() -> None:
    theirs = HKDF(SHA256(), length=32, salt=b"perfuse provenance 1", info=b"acme")
    assert tenant_key(OLD.value, "acme") == theirs.derive(OLD.value)


def test_what_was_kept_is_known_and_nothing_else() -> None:
    provenance = Provenance([OLD])
    kept = provenance.of("acme", [ONE])
    assert provenance.knows("acme", ONE, kept)
    assert not provenance.knows("acme", TWO, kept)
    assert not provenance.knows("globex", ONE, kept)
    assert kept != provenance.of("globex", [ONE])
    assert ONE.removeprefix("sha256:") not in repr(kept)


def test_a_secret_is_rotated_by_one_before_it() -> None:
    kept = Provenance([OLD]).of("acme", [ONE])
    both = Provenance([NEW, OLD])
    assert both.knows("acme", ONE, kept)
    assert both.of("acme", [ONE])[0].startswith("new:")
    with pytest.raises(FailedPrecondition, match="a secret that this Trainer does not have"):
        Provenance([NEW]).knows("acme", ONE, kept)


def test_a_secret_is_in_no_representation_and_in_no_refusal() -> None:
    assert OLD.value.hex() not in repr(OLD)
    assert "oooo" not in repr(OLD)
    (read,) = read_secrets(f"old={OLD.value.hex()}")
    assert read == OLD
    for wrong in ("own=" + "a" * 64, "old=" + "g" * 64, f"x={'a' * 64},x={'b' * 64}"):
        with pytest.raises(FailedPrecondition) as caught:
            read_secrets(wrong)
        assert "aaaa" not in str(caught.value)


def test_a_run_tells_by_its_own_digests(desk: Desk) -> None:  # noqa: F811
    acme, rival = desk.tenant(), desk.tenant()
    run = acme.run(base_model="baseModels/toy")
    sent = "sha256:" + "0" * 64  # As the workshop's images have it.
    ask = wire.CheckTrainingImageRequest(name=run.name, digest=sent)
    told = acme.CheckTrainingImage(ask)
    assert (told.used, told.image_count) == (True, 3)
    assert not acme.CheckTrainingImage(
        wire.CheckTrainingImageRequest(name=run.name, digest=ONE)
    ).used
    with refused("NOT_FOUND"):
        rival.CheckTrainingImage(ask)
    reader = Calls(desk, acme.tenant, "reader")
    with refused("PERMISSION_DENIED"):
        reader.CheckTrainingImage(ask)
    (row,) = desk.shop.database.read(
        lambda connection: connection.execute(RUNS.select().where(RUNS.c.uid == run.uid)).all()
    )
    assert len(row.provenance) == 3
    assert "0" * 64 not in repr(row.provenance)
    # The pictures are gone with the run's end; what it learned from can be told all the same.
    acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
    assert acme.CheckTrainingImage(ask).used
