"""The gate: what bytes must be before they may become a version. Needs neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from perfuse.adapter import AdapterHeader, check_finite, digest, read_header
from perfuse.errors import BaseModelMismatch, DigestMismatch, InvalidArgument
from perfuse.storage.database import AnyRow


@dataclass(frozen=True)
class Judged:
    """Bytes that passed the gate as far as it needs no database."""

    data: bytes
    digest: str
    header: AdapterHeader


def judge(data: bytes, claimed: str) -> Judged:
    """Refuse bytes that are no adapter, or not those that the caller meant.

    Args:
        data: The whole file.
        claimed: The digest that the caller computed.

    Raises:
        AdapterRefused: as one of the cases of `perfuse.adapter.errors`.
        DigestMismatch: the bytes were changed on their way.
    """
    header = read_header(data)
    check_finite(header, data)
    actual = digest(data)
    if actual != claimed:
        raise DigestMismatch(
            f"the adapter's digest is {actual}, claimed was {claimed}. Read the file again and "
            "send it with the digest of the bytes sent"
        )
    return Judged(data, actual, header)


def require_super_category(judged: Judged, super_category: str) -> None:
    """Refuse an adapter of another super-category than the concept's.

    Raises:
        InvalidArgument: naming both.
    """
    stated = judged.header.metadata.super_category
    if stated != super_category:
        raise InvalidArgument.in_field(
            "adapter",
            f"it was trained with the super-category {stated!r}, the concept's is "
            f"{super_category!r}. Send it to a concept of its own super-category",
        )


def require_base_model(judged: Judged, base: AnyRow | None) -> AnyRow:
    """The row of the adapter's base model, if it is known and shaped as the adapter says.

    Raises:
        BaseModelMismatch: unknown, or of other layers, encoders or widths.
    """
    metadata = judged.header.metadata
    if base is None:
        raise BaseModelMismatch(
            f"the adapter stands on base model {metadata.base_model}, which this Registry does "
            "not know. An operator must create it first, with CreateBaseModel"
        )
    for what, stated, known in (
        ("architecture", metadata.architecture, base.architecture),
        ("conditioning width", metadata.conditioning_width, base.conditioning_width),
        ("layers", [[x.name, x.width] for x in metadata.layers], base.layers),
        ("encoders", [[x.name, x.width] for x in metadata.encoders], base.encoders),
    ):
        if stated != known:
            raise BaseModelMismatch(
                f"the adapter's {what} are not those of baseModels/{base.base_model_id}, though "
                "it names its fingerprint. Train the concept again on that base model"
            )
    return base
