"""Receipts of erasures: canonical JSON, one a line where there are several."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from perfuse.errors import InvalidArgument
from perfuse.names import ConceptName
from perfuse_registry.catalog.erased import ErasedAdapter, Erasure


def read_receipts(text: str) -> list[dict[str, Any]]:
    """Receipts, one a line.

    Raises:
        InvalidArgument: a line is none.
    """
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InvalidArgument(
            f"a line is no receipt: {error}. Give lines as export-erasures writes them"
        ) from error


def canonical(erasure: Erasure) -> str:
    """What is signed: keys sorted, no spaces, moments in ISO 8601 and UTC."""
    told = {
        "adapters": [_file(each) for each in erasure.adapters if not each.preview],
        "aliases": erasure.alias_count,
        "complete_time": _told(erasure.complete_time),
        "concept": str(ConceptName(erasure.tenant, erasure.concept_id)),
        "consents": erasure.consent_count,
        "erase_time": _told(erasure.erase_time),
        "eraser": erasure.eraser,
        "grants": erasure.grant_count,
        "name": str(erasure.name),
        "previews": [_file(each) for each in erasure.adapters if each.preview],
        "state": "COMPLETE" if erasure.complete_time else "ERASING",
        "trainer": None
        if erasure.trainer is None
        else {**erasure.trainer.to_json(), "confirm_time": _told(erasure.trainer_time)},
        "uid": erasure.uid,
        "versions": erasure.version_count,
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _file(erased: ErasedAdapter) -> dict[str, str | int]:
    return {
        "digest": erased.digest,
        "holders": erased.holder_count,
        "size_bytes": erased.size_bytes,
        "state": erased.state.value,
    }


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
