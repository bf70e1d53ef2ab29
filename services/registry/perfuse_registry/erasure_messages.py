"""Erasures between the wire's messages and the rules' values."""

from __future__ import annotations

from perfuse.v1 import erasure_pb2
from perfuse_registry.catalog.erased import Erasure, Fate, TrainerCounts
from perfuse_registry.messages import timestamp

_FATES = {
    Fate.PENDING: erasure_pb2.ERASED_ADAPTER_STATE_PENDING,
    Fate.REMOVED: erasure_pb2.ERASED_ADAPTER_STATE_REMOVED,
    Fate.KEPT: erasure_pb2.ERASED_ADAPTER_STATE_KEPT,
}
_UNCONFIRMED = (
    "Renderers forget what they cached of the concept by themselves, and nobody says when; "
    "docs/threat-model.md states how long that takes",
    "backups, and what was downloaded or rendered before, are out of reach; after a restore, run "
    "perfuse-registry reapply-erasures",
)


def erasure(value: Erasure, receipt: tuple[str, str] | None = None) -> erasure_pb2.Erasure:
    """An erasure for the wire, with its receipt and that one's HMAC; None in lists."""
    complete = value.complete_time
    state = erasure_pb2.ERASURE_STATE_COMPLETE if complete else erasure_pb2.ERASURE_STATE_ERASING
    told = erasure_pb2.Erasure(
        name=str(value.name),
        concept=f"tenants/{value.tenant}/concepts/{value.concept_id}",
        uid=value.uid,
        eraser=value.eraser,
        erase_time=timestamp(value.erase_time),
        state=state,
        complete_time=timestamp(complete),
        version_count=value.version_count,
        alias_count=value.alias_count,
        grant_count=value.grant_count,
        consent_count=value.consent_count,
    )
    if value.trainer is not None:
        told.trainer.CopyFrom(
            erasure_pb2.TrainerErasure(
                **value.trainer.to_json(), confirm_time=timestamp(value.trainer_time)
            )
        )
    for each in value.adapters:
        told.adapters.add(
            digest=each.digest,
            size_bytes=each.size_bytes,
            state=_FATES[each.state],
            holder_count=each.holder_count,
            preview=each.preview,
        )
    if receipt is None:
        return told
    told.unconfirmed.extend(_UNCONFIRMED)
    told.receipt, told.receipt_mac = receipt
    return told


def trainer_counts(sent: erasure_pb2.TrainerErasure) -> TrainerCounts:
    """What the Trainer says that it removed."""
    return TrainerCounts(
        run_count=sent.run_count,
        ended_run_count=sent.ended_run_count,
        image_set_count=sent.image_set_count,
        kept_image_set_count=sent.kept_image_set_count,
        file_count=sent.file_count,
    )
