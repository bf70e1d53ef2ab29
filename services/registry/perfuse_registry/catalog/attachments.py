"""What a version brings with its adapter: previews, and the curve of its training.

Previews are files in the blob store, under the same rules as adapters: a lease, the bytes, then the
rows, in the transaction of the version. The curve lies in the version's row, for it is asked for
with it. Neither ever changes; both go with the version.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from perfuse.adapter import digest
from perfuse.errors import DigestMismatch, InvalidArgument
from perfuse.names import VersionName
from perfuse.storage.moments import now
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.ownership import missing
from perfuse_registry.catalog.preview_pictures import judge_picture
from perfuse_registry.catalog.resources import Attachments, CurvePoint, Preview
from perfuse_registry.tables import BLOBS, PREVIEWS, VERSIONS

MAX_PREVIEWS_BYTES = 3 << 20
"""Of all previews of a version, so that they and the adapter fit into one message."""

_PREVIEW = tuple(Preview.__dataclass_fields__)
_WITH_PREVIEWS = Prepared(
    select(VERSIONS.c.curve, PREVIEWS.c.position, *(PREVIEWS.c[key] for key in _PREVIEW))
    .select_from(VERSIONS)
    .outerjoin(
        PREVIEWS,
        (PREVIEWS.c.concept == VERSIONS.c.concept) & (PREVIEWS.c.number == VERSIONS.c.number),
    )
    .where(VERSIONS.c.id == bindparam("version"))
    .order_by(PREVIEWS.c.position)
)


@dataclass(frozen=True, slots=True)
class NewPreview:
    """A picture as it was sent; `claimed` is the digest that the caller computed."""

    picture: bytes = field(repr=False)
    claimed: str
    step: int
    caption: str


@dataclass(frozen=True, slots=True)
class NewAttachments:
    """What is to come with an adapter, as it was sent."""

    previews: tuple[NewPreview, ...] = ()
    curve: tuple[CurvePoint, ...] = ()

    def content(self) -> list[Any]:
        """For the memory of requests; nothing where nothing was sent, as earlier releases had."""
        if not self.previews and not self.curve:
            return []
        pictures = [[each.claimed, each.step, each.caption] for each in self.previews]
        return [pictures, points_json(self.curve)]


@dataclass(frozen=True, slots=True)
class JudgedAttachments:
    """What passed the gate.

    Attributes:
        attachments: As they will be told.
        files: Of the previews, by digest; two previews may have the same.
        size_bytes: Of all that will be kept, as a quota counts it.
    """

    attachments: Attachments = field(default_factory=Attachments)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    size_bytes: int = 0


def judge_attachments(sent: NewAttachments) -> JudgedAttachments:
    """Refuse pictures that are none, or not those that the caller meant, and a curve in disorder.

    Raises:
        InvalidArgument, DigestMismatch: naming the field.
    """
    previews, files = [], {}
    for index, each in enumerate(sent.previews):
        where = f"previews[{index}]"
        facts = judge_picture(each.picture, f"{where}.picture")
        actual = digest(each.picture)
        if actual != each.claimed:
            raise DigestMismatch(
                f"the digest of {where} is {actual}, claimed was {each.claimed}. Send the digest "
                "of the bytes sent"
            )
        files[actual] = each.picture
        previews.append(
            Preview(
                digest=actual,
                size_bytes=len(each.picture),
                media_type=facts.media_type,
                width=facts.width,
                height=facts.height,
                step=each.step,
                caption=each.caption,
            )
        )
    total = sum(each.size_bytes for each in previews)
    if total > MAX_PREVIEWS_BYTES:
        raise InvalidArgument.in_field(
            "previews",
            f"they have {total} bytes, and at most {MAX_PREVIEWS_BYTES} are kept with a version. "
            "Send fewer, or smaller ones",
        )
    for before, after in itertools.pairwise(sent.curve):
        if after.step <= before.step:
            raise InvalidArgument.in_field(
                "curve", f"step {after.step} follows step {before.step}; send points by their steps"
            )
    if sent.curve:
        total += len(json.dumps(points_json(sent.curve)))
    return JudgedAttachments(Attachments(tuple(previews), sent.curve), files, total)


def points_json(curve: Sequence[CurvePoint]) -> list[list[float | None]]:
    """A curve as its row keeps it."""
    return [[each.step, each.validation_loss, each.similarity] for each in curve]


def insert_previews(
    connection: Connection, tenant: str, concept: int, number: int, previews: Sequence[Preview]
) -> None:
    """Insert a new version's previews, whose bytes are in the store, after the version's row."""
    rows = [
        {
            "concept": concept,
            "number": number,
            "position": position,
            "tenant": tenant,
            **{key: getattr(each, key) for key in _PREVIEW},
        }
        for position, each in enumerate(previews)
    ]
    connection.execute(insert(PREVIEWS), rows)


def attachments_of(connection: Connection, version: int, name: VersionName) -> Attachments:
    """What a version brought with it.

    Args:
        connection: For reading.
        version: Key of its row.
        name: For the refusal.

    Raises:
        NotFound: it was deleted since its row was read.
    """
    rows = _WITH_PREVIEWS.all(connection, version=version)
    if not rows:
        raise missing(name)
    previews = tuple(Preview(*row[2:]) for row in rows if row.position is not None)
    return Attachments(previews, tuple(CurvePoint(*point) for point in rows[0].curve or ()))


def remove_previews(connection: Connection, tenant: str, concept: int, number: int) -> None:
    """Remove a version's previews before its row; the grace period of their bytes begins."""
    of_version = (PREVIEWS.c.concept == concept, PREVIEWS.c.number == number)
    digests = connection.scalars(select(PREVIEWS.c.digest).where(*of_version)).all()
    if not digests:
        return
    connection.execute(delete(PREVIEWS).where(*of_version))
    connection.execute(
        update(BLOBS)
        .where(BLOBS.c.tenant == tenant, BLOBS.c.digest.in_(sorted(set(digests))))
        .values(touch_time=now())
    )
