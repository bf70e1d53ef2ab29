"""Base models, as callers use them."""

from __future__ import annotations

from collections.abc import Iterator

from perfuse.client import reading_registry as reading
from perfuse.client._sync.calls import Calls
from perfuse.client.resources import BaseModel
from perfuse.client.writing import request_id_or_new
from perfuse.v1 import registry_pb2 as wire


class BaseModels:
    """Base models of the Registry; meant by id, `sd15`, or whole name, `baseModels/sd15`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, base_model: BaseModel, *, request_id: str = "") -> BaseModel:
        """Make a base model known to all tenants. Only operators may.

        Args:
            base_model: as described by `perfuse base show --json`; its `name` is kept, what the
                Registry sets itself is not read.

        Raises:
            AlreadyExists: the id or the fingerprint is known already.
        """
        request = wire.CreateBaseModelRequest(
            base_model_id=self._calls.names.base_model(base_model.name).base_model,
            base_model=wire.BaseModel(
                display_name=base_model.display_name,
                fingerprint=base_model.fingerprint,
                architecture=base_model.architecture,
                conditioning_width=base_model.conditioning_width,
                layers=[
                    wire.Layer(name=name, width=width) for name, width in base_model.layers.items()
                ],
                encoders=[
                    wire.Encoder(name=name, width=width)
                    for name, width in base_model.encoders.items()
                ],
                covariance_digest=base_model.covariance_digest,
                labels=base_model.labels,
            ),
            request_id=request_id_or_new(request_id),
        )
        return reading.base_model(self._calls.call("registry", "CreateBaseModel", request))

    def get(self, base_model: str) -> BaseModel:
        """A base model.

        Raises:
            NotFound: the Registry knows none of that name.
        """
        name = str(self._calls.names.base_model(base_model))
        request = wire.GetBaseModelRequest(name=name)
        return reading.base_model(self._calls.call("registry", "GetBaseModel", request))

    def list(self, *, filter: str = "", page_size: int = 0) -> Iterator[BaseModel]:
        """All of them by name, fetched page by page.

        Args:
            filter: AIP-160, as `architecture = "sd-768"`.
            page_size: of a page; 0 leaves it to the Registry.
        """
        request = wire.ListBaseModelsRequest(filter=filter, page_size=page_size)
        for each in self._calls.pages("registry", "ListBaseModels", request, "base_models"):
            yield reading.base_model(each)

    def delete(self, base_model: str, *, etag: str = "") -> None:
        """Forget a base model that no version stands on. Only operators may.

        Raises:
            BaseModelInUse: versions stand on it.
        """
        name = str(self._calls.names.base_model(base_model))
        request = wire.DeleteBaseModelRequest(
            name=name, etag=etag, request_id=request_id_or_new("")
        )
        self._calls.call("registry", "DeleteBaseModel", request)
