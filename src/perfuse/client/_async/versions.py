"""Versions of concepts, as callers use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perfuse.adapter.header import digest as digest_of
from perfuse.client import reading_registry as reading
from perfuse.client._async.calls import Calls
from perfuse.client.attachments import CurvePoint, DownloadedPreview, NewPreview, attach
from perfuse.client.resources import Blend, Compatibility, ConceptPair, Download, Version
from perfuse.client.writing import file_bytes, request_id_or_new
from perfuse.errors import DataLoss
from perfuse.v1 import registry_pb2 as wire

_UPLOAD_SECONDS = 60.0


class Versions:
    """Versions of the Registry.

    A version is meant by `tom` (the latest), `tom@prod`, `tom@7`, or its whole name.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def publish(
        self,
        concept: str,
        adapter: bytes | str | Path,
        *,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        training_run: str = "",
        previews: Sequence[NewPreview] = (),
        curve: Sequence[CurvePoint] = (),
        validate_only: bool = False,
        request_id: str = "",
    ) -> Version:
        """Store an adapter as the concept's next version.

        Args:
            concept: id or name.
            adapter: the file's bytes, or its path.
            training_run: name of the run that it came from.
            previews: pictures that become part of the version, at most 16 and 3 MiB.
            curve: how its training went, by step, at most 256 points; becomes part of it.
            validate_only: judge it and store nothing.
            request_id: the same for the same wish, so that it is done once; drawn by default.

        Raises:
            AdapterRefused: the bytes are not an adapter.
            BaseModelMismatch: its base model is not known to the Registry.
            InvalidArgument: a preview is no plain picture, or there are too many.
        """
        data = file_bytes(adapter)
        request = wire.CreateVersionRequest(
            parent=str(self._calls.names.concept(concept)),
            adapter=data,
            digest=digest_of(data),
            version=wire.Version(
                description=description, labels=labels or {}, training_run=training_run
            ),
            validate_only=validate_only,
            request_id=request_id_or_new(request_id),
        )
        pictures = [(file_bytes(each.picture), each.step, each.caption) for each in previews]
        attach(request, pictures, curve)
        made = await self._calls.call("registry", "CreateVersion", request, _UPLOAD_SECONDS)
        return reading.version(made)

    async def get(self, version: str) -> Version:
        """What a version's name stands for at the moment; the answer has its number.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = wire.GetVersionRequest(name=str(self._calls.names.version(version)))
        return reading.version(await self._calls.call("registry", "GetVersion", request))

    async def batch_get(self, versions: Sequence[str]) -> tuple[Version, ...]:
        """Up to 100 at once, in the order asked for; one that is missing fails all."""
        names = [self._calls.names.version(version) for version in versions]
        request = wire.BatchGetVersionsRequest(
            parent=self._calls.names.parent, names=map(str, names)
        )
        found = await self._calls.call("registry", "BatchGetVersions", request)
        return tuple(map(reading.version, found.versions))

    async def list(
        self, concept: str, *, filter: str = "", order_by: str = "", page_size: int = 0
    ) -> AsyncIterator[Version]:
        """A concept's versions, by default the newest first, fetched page by page.

        Args:
            concept: id or name.
            filter: AIP-160, as `key_lock = "LOCAL" AND number > 3`.
            order_by: as `number` or `create_time desc`.
            page_size: of a page; 0 leaves it to the Registry.
        """
        request = wire.ListVersionsRequest(
            parent=str(self._calls.names.concept(concept)),
            filter=filter,
            order_by=order_by,
            page_size=page_size,
        )
        async for each in self._calls.pages("registry", "ListVersions", request, "versions"):
            yield reading.version(each)

    async def update(
        self,
        version: str,
        *,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Version:
        """Change what is given of a version named by its number; None leaves a field."""
        given: dict[str, Any] = {"description": description, "labels": labels}
        changed = {field: value for field, value in given.items() if value is not None}
        name = str(self._calls.names.version(version))
        request = wire.UpdateVersionRequest(
            version=wire.Version(name=name, etag=etag, **changed), request_id=request_id_or_new("")
        )
        request.update_mask.paths.extend(changed)
        return reading.version(await self._calls.call("registry", "UpdateVersion", request))

    async def delete(self, version: str, *, etag: str = "") -> None:
        """Remove a version, named by its number, for good.

        Raises:
            AliasInUse: an alias points at it.
        """
        name = str(self._calls.names.version(version))
        request = wire.DeleteVersionRequest(name=name, etag=etag, request_id=request_id_or_new(""))
        await self._calls.call("registry", "DeleteVersion", request)

    async def download(self, version: str, *, known_digest: str = "") -> Download:
        """A version with its file, verified here too.

        Args:
            version: by number, alias or latest.
            known_digest: of bytes that the caller has; then those are not sent again.

        Raises:
            DataLoss: the bytes are not those of the digest.
        """
        request = wire.DownloadAdapterRequest(
            name=str(self._calls.names.version(version)), known_digest=known_digest
        )
        answer = await self._calls.call("registry", "DownloadAdapter", request, _UPLOAD_SECONDS)
        found = reading.version(answer.version)
        if answer.not_modified:
            return Download(version=found, adapter=None)
        if digest_of(answer.adapter) != found.digest:
            raise DataLoss(
                f"the bytes that came for {found.name} are not those of {found.digest}. Download "
                "them again; if that does not help, ask the Registry's operator to verify"
            )
        return Download(version=found, adapter=answer.adapter)

    async def preview(self, version: str, digest: str) -> DownloadedPreview:
        """A picture that a version brought with it, verified here too.

        Args:
            version: by number, alias or latest.
            digest: of the preview, as `get` tells it.

        Raises:
            NotFound: the version has no such preview.
            DataLoss: the bytes are not those of the digest.
        """
        name = str(self._calls.names.version(version))
        request = wire.DownloadPreviewRequest(name=name, digest=digest)
        answer = await self._calls.call("registry", "DownloadPreview", request, _UPLOAD_SECONDS)
        if digest_of(answer.picture) != digest:
            raise DataLoss(
                f"the bytes that came for a preview of {name} are not those of {digest}. Download "
                "them again; if that does not help, ask the Registry's operator to verify"
            )
        preview = reading.version_preview(answer.preview)
        return DownloadedPreview(preview=preview, picture=answer.picture)

    async def check_compatibility(self, version: str, base_model: str) -> Compatibility:
        """Whether a version fits a base model, and what does not fit."""
        request = wire.CheckCompatibilityRequest(
            version=str(self._calls.names.version(version)),
            base_model=str(self._calls.names.base_model(base_model)),
        )
        found = await self._calls.call("registry", "CheckCompatibility", request)
        return Compatibility(compatible=found.compatible, differences=tuple(found.differences))

    async def check_blend(self, versions: Sequence[str]) -> Blend:
        """Whether versions can be blended in one render, and why not."""
        names = [str(self._calls.names.version(version)) for version in versions]
        request = wire.CheckBlendRequest(parent=self._calls.names.parent, versions=names)
        found = await self._calls.call("registry", "CheckBlend", request)
        pairs = tuple(
            ConceptPair(
                first=pair.first,
                second=pair.second,
                cosine=pair.cosine,
                too_close=pair.too_close,
                cosine_withheld=pair.cosine_withheld,
            )
            for pair in found.pairs
        )
        return Blend(blendable=found.blendable, problems=tuple(found.problems), pairs=pairs)
