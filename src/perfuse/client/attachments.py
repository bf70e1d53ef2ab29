"""What a version brings with its adapter: previews, and the curve of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfuse.adapter.header import digest as digest_of
from perfuse.v1 import registry_pb2 as wire

MAX_PREVIEWS = 16
"""Of one version."""

MAX_PREVIEW_BYTES = 1 << 20
"""Of one preview."""

MAX_PREVIEWS_BYTES = 3 << 20
"""Of all previews of a version."""

MAX_CURVE_POINTS = 256
"""Of one version."""

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """How far a training was after some steps.

    Attributes:
        step: training steps done.
        validation_loss: on fixed noise and timesteps; None where it was not looked at then.
        similarity: mean cosine between previews and training pictures, likewise.
    """

    step: int
    validation_loss: float | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPreview:
    """A picture to be published with an adapter.

    Attributes:
        picture: a PNG, JPEG or WebP file without metadata, or its path.
        step: training steps after which it was drawn.
        caption: what was asked for, with `<>` for the concept.
    """

    picture: bytes | str | Path = field(repr=False)
    step: int = 0
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPreview:
    """A picture that a version brought with it.

    Attributes:
        digest: of its file.
        size_bytes: of its file.
        media_type: `image/png`, `image/jpeg` or `image/webp`.
        width, height: in pixels.
        step: training steps after which it was drawn.
        caption: what was asked for, with `<>` for the concept.
    """

    digest: str
    size_bytes: int
    media_type: str
    width: int
    height: int
    step: int
    caption: str

    @property
    def suffix(self) -> str:
        """Of a file of its format, such as `.jpg`."""
        return _SUFFIX.get(self.media_type, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadedPreview:
    """A preview with its file, whose digest was compared."""

    preview: VersionPreview
    picture: bytes = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the file, and its folder if need be."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.picture)
        return file


def attach(
    request: wire.CreateVersionRequest,
    previews: Sequence[tuple[bytes, int, str]],
    curve: Sequence[CurvePoint],
) -> None:
    """Put what is to come with an adapter into its request.

    Args:
        request: for the adapter.
        previews: file, step and caption of each.
        curve: by step.
    """
    for picture, step, caption in previews:
        request.previews.add(picture=picture, digest=digest_of(picture), step=step, caption=caption)
    for point in curve:
        request.curve.add(
            step=point.step, validation_loss=point.validation_loss, similarity=point.similarity
        )
