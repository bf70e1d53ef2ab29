"""Concepts, as callers use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfuse.client import reading_registry as reading
from perfuse.client._sync.calls import Calls
from perfuse.client.resources import Concept
from perfuse.client.writing import request_id_or_new
from perfuse.v1 import registry_pb2 as wire


class Concepts:
    """Concepts of the Registry. A concept is meant by its id, `tom`, or by its whole name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(
        self,
        concept: str,
        *,
        super_category: str,
        display_name: str = "",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        likeness: bool = False,
        request_id: str = "",
    ) -> Concept:
        """Make a concept without versions.

        Args:
            concept: its id to be.
            super_category: the everyday noun that it is a kind of; never changes.
            likeness: whether it is of a living person, whose consent it then needs; never changes.
            request_id: the same for the same wish, so that it is done once; drawn by default.

        Raises:
            AlreadyExists: the id is taken, perhaps by a deleted concept.
        """
        name = self._calls.names.concept(concept)
        request = wire.CreateConceptRequest(
            parent=f"tenants/{name.tenant}",
            concept_id=name.concept,
            concept=wire.Concept(
                super_category=super_category,
                display_name=display_name,
                description=description,
                labels=labels or {},
                likeness=likeness,
            ),
            request_id=request_id_or_new(request_id),
        )
        return reading.concept(self._calls.call("registry", "CreateConcept", request))

    def get(self, concept: str) -> Concept:
        """A concept, deleted or not.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = wire.GetConceptRequest(name=str(self._calls.names.concept(concept)))
        return reading.concept(self._calls.call("registry", "GetConcept", request))

    def list(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> Iterator[Concept]:
        """The tenant's concepts, fetched page by page as they are used.

        Args:
            filter: AIP-160, as `super_category = "cat" AND labels.team = "a"`.
            order_by: as `create_time desc`.
            show_deleted: deleted ones too.
            page_size: of a page; 0 leaves it to the Registry.
        """
        request = wire.ListConceptsRequest(
            parent=self._calls.names.parent,
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
        )
        for each in self._calls.pages("registry", "ListConcepts", request, "concepts"):
            yield reading.concept(each)

    def update(
        self,
        concept: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Concept:
        """Change what is given; None leaves a field as it is.

        Raises:
            EtagMismatch: an etag was given, and the concept has changed since.
        """
        given: dict[str, Any] = {
            "display_name": display_name,
            "description": description,
            "labels": labels,
        }
        changed = {field: value for field, value in given.items() if value is not None}
        name = str(self._calls.names.concept(concept))
        request = wire.UpdateConceptRequest(
            concept=wire.Concept(name=name, etag=etag, **changed), request_id=request_id_or_new("")
        )
        request.update_mask.paths.extend(changed)
        return reading.concept(self._calls.call("registry", "UpdateConcept", request))

    def delete(self, concept: str, *, force: bool = False, etag: str = "") -> Concept:
        """Delete a concept; until its `purge_time` it can be undeleted.

        Args:
            concept: id or name.
            force: also where it has versions.
            etag: if given, of the concept as it was read.

        Raises:
            ConceptNotEmpty: it has versions, and `force` was not given.
        """
        name = str(self._calls.names.concept(concept))
        request = wire.DeleteConceptRequest(
            name=name, force=force, etag=etag, request_id=request_id_or_new("")
        )
        return reading.concept(self._calls.call("registry", "DeleteConcept", request))

    def undelete(self, concept: str, *, etag: str = "") -> Concept:
        """Take a deletion back, with versions and aliases as they were."""
        name = str(self._calls.names.concept(concept))
        request = wire.UndeleteConceptRequest(
            name=name, etag=etag, request_id=request_id_or_new("")
        )
        return reading.concept(self._calls.call("registry", "UndeleteConcept", request))
