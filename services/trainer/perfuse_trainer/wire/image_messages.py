"""Between the wire's messages and the rules' values, for image sets; nothing is decided here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.storage.listing import Query
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer import resources


def image_set(value: resources.ImageSet) -> wire.ImageSet:
    """A set for the wire."""
    return wire.ImageSet(
        name=str(value.name),
        uid=value.uid,
        images=map(image, value.images),
        keep=value.keep,
        expire_time=timestamp(value.expire_time),
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        etag=value.etag,
        emptied=value.emptied,
    )


def image(value: resources.Image) -> wire.Image:
    """An image for the wire."""
    return wire.Image(
        file_name=value.file_name,
        digest=value.digest,
        width=value.width,
        height=value.height,
        has_mask=value.has_mask,
    )


def ttl(sent: wire.ImageSet) -> timedelta | None:
    """How long a set is to be kept; None where the caller does not say."""
    return sent.ttl.ToTimedelta() if sent.HasField("ttl") else None


def query(request: Any) -> Query:
    """What a list request asks for."""
    return Query(
        page_size=request.page_size,
        page_token=request.page_token,
        filter=request.filter,
        order_by=request.order_by,
    )


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for the wire, unset where there is none."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
