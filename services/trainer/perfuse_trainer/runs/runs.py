"""Rules for training runs: queued, read, cancelled, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from perfuse.errors import (
    AlreadyExists,
    ImageSetEmpty,
    InvalidArgument,
    TrainingRunNotEnded,
)
from perfuse.names import TenantName, TrainingRunName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_trainer.provenance import Provenance
from perfuse_trainer.requests import once, replayed
from perfuse_trainer.resources import Event, Run, RunState
from perfuse_trainer.runs.allowance import Allowance, Used
from perfuse_trainer.runs.endings import end
from perfuse_trainer.runs.erasing import require_unerased
from perfuse_trainer.runs.events import append, events_after, state_news, validations
from perfuse_trainer.runs.run_order import RunOrder as RunOrder
from perfuse_trainer.runs.run_rows import RUN_NAMED, found_run, missing
from perfuse_trainer.tables import EVENTS, IMAGE_SETS, IMAGES, RUNS
from perfuse_trainer.vault import Vault

FILTERS = {
    "training_run_id": Field(RUNS.c.run_id, Kind.TEXT),
    "state": Field(RUNS.c.state, Kind.ENUM, tuple(RunState)),
    "concept": Field("tenants/" + RUNS.c.tenant + "/concepts/" + RUNS.c.concept_id, Kind.TEXT),
    "create_time": Field(RUNS.c.create_time, Kind.TIMESTAMP),
    "end_time": Field(RUNS.c.end_time, Kind.TIMESTAMP),
    "labels": Field(RUNS.c.labels, Kind.LABELS),
}
ORDERS = {
    "training_run_id": RUNS.c.run_id,
    "create_time": RUNS.c.create_time,
    "update_time": RUNS.c.update_time,
}

_STORED = tuple(name for name in Run.__dataclass_fields__ if name in RUNS.c)
_DIGESTS = (
    select(IMAGES.c.digest)
    .where(IMAGES.c.image_set == bindparam("image_set"))
    .order_by(IMAGES.c.digest)
)


class Runs:
    """Training runs of every tenant.

    Args:
        database: With the Trainer's tables.
        vault: Where their files are.
        lists: For pages.
        allowance: How many runs tenants may have under way.
        provenance: Makes keyed digests of the pictures that a run learns from.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        lists: Lists,
        allowance: Allowance,
        provenance: Provenance,
    ) -> None:
        self._provenance = provenance
        self._allowance = allowance
        self._database = database
        self._vault = vault
        self._lists = lists

    def earlier(self, mutation: Mutation, content: object) -> Run | None:
        """What the same request made before; None for a new one.

        Raises:
            RequestIdReused: the id was used for something else.
        """
        done, answer = self._database.read(
            lambda connection: replayed(connection, mutation, "CreateTrainingRun", content, Run)
        )
        return answer if done else None

    def create(self, mutation: Mutation, order: RunOrder, content: object) -> Run:
        """Queue a run.

        Args:
            mutation: Who asks.
            order: With everything settled; its concept exists in the Registry.
            content: As for `earlier`.

        Raises:
            NotFound: there is no such image set of the tenant's.
            ConceptErased: the concept was erased meanwhile.
            ImageSetEmpty: it holds no images.
            AlreadyExists: the id is taken.
            QuotaExceeded: as many of the tenant's runs wait as may.
            InvalidArgument: masks were to come with the images, and one has none.
        """
        if {order.concept.tenant, order.image_set.tenant} != {mutation.tenant}:
            raise missing(
                order.concept if order.concept.tenant != mutation.tenant else order.image_set
            )

        def work(connection: Connection) -> Run:
            return self._create(connection, order)

        return once(self._database, mutation, "CreateTrainingRun", content, Run, work)

    def get(self, tenant: str, name: TrainingRunName) -> Run:
        """A run with its validations.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """

        def work(connection: Connection) -> Run:
            row = found_run(connection, tenant, name)
            return replace(_run(row), validations=validations(connection, row.id))

        return self._database.read(work)

    def usage(self, tenant: str, name: TenantName) -> Sequence[Used]:
        """What a tenant has under way, and may have, by quota.

        Raises:
            NotFound: another tenant's.
        """
        if name.tenant != tenant:
            raise missing(name)
        return self._database.read(lambda connection: self._allowance.used(connection, tenant))

    def list(self, tenant: str, parent: TenantName, query: Query) -> Page[Run]:
        """A page of a tenant's runs.

        Raises:
            NotFound: another tenant's.
            InvalidArgument: filter, order, token or size.
        """
        if parent.tenant != tenant:
            raise missing(parent)
        return self._lists.page(
            select(RUNS).where(RUNS.c.tenant == tenant),
            query,
            Listing(tenant, "ListTrainingRuns", str(parent), query.filter),
            FILTERS,
            ORDERS,
            "create_time desc",
            RUNS.c.id,
            _run,
        )

    def cancel(self, mutation: Mutation, name: TrainingRunName) -> Run:
        """End a run within one step; one that ended, or whose adapter is done, stays as it is.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        left: list[str] = []

        def work(connection: Connection) -> Run:
            left.clear()
            row = found_run(connection, mutation.tenant, name, lock=True)
            moment = now()
            if row.state == RunState.QUEUED.value:
                left.extend(end(connection, row, RunState.CANCELLED, moment))
            elif row.state == RunState.RUNNING.value and row.adapter_blob is None:
                changed = update(RUNS).where(RUNS.c.id == row.id)
                connection.execute(
                    changed.values(
                        state=RunState.CANCELLING.value,
                        update_time=moment,
                        revision=row.revision + 1,
                    )
                )
                news = [state_news(RunState.CANCELLING, row.attempt)]
                append(connection, row.id, row.tenant, news, moment)
            return _run(found_run(connection, mutation.tenant, name))

        run = once(self._database, mutation, "CancelTrainingRun", [str(name)], Run, work)
        self._vault.drop(run.tenant, left)
        return run

    def delete(self, mutation: Mutation, name: TrainingRunName) -> None:
        """Delete a run that has ended, with its events and previews.

        Raises:
            NotFound: there is none, or it is another tenant's.
            TrainingRunNotEnded: it has not ended.
        """
        left: list[str] = []

        def work(connection: Connection) -> None:
            left.clear()
            row = found_run(connection, mutation.tenant, name, lock=True)
            if not RunState(row.state).is_final:
                raise TrainingRunNotEnded(
                    f"{name} is {row.state}. Cancel it first, or wait for its end"
                )
            pictures = select(EVENTS.c.blob).where(
                EVENTS.c.run == row.id, EVENTS.c.blob.is_not(None)
            )
            left.extend(connection.execute(pictures).scalars())
            connection.execute(delete(EVENTS).where(EVENTS.c.run == row.id))
            connection.execute(delete(RUNS).where(RUNS.c.id == row.id))

        once(self._database, mutation, "DeleteTrainingRun", [str(name)], type(None), work)
        self._vault.drop(mutation.tenant, left)

    def events(self, tenant: str, name: TrainingRunName, uid: str, after: int) -> Sequence[Event]:
        """Some events of a run with higher numbers than `after`, in their order.

        Args:
            tenant: Of the caller.
            name: Of the run.
            uid: Of the run that is meant; another one of the same name is not found.
            after: Last number known.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        row = self._database.read(lambda connection: found_run(connection, tenant, name))
        if row.uid != uid:
            raise missing(name)
        return events_after(self._database, row.id, after)

    def preview(self, tenant: str, blob: str) -> bytes:
        """A preview's file."""
        return self._vault.get(tenant, blob)

    def _create(self, connection: Connection, order: RunOrder) -> Run:
        chosen = select(IMAGE_SETS).where(
            IMAGE_SETS.c.tenant == order.tenant,
            IMAGE_SETS.c.image_set_id == order.image_set.image_set,
        )
        # Uploads, deletion and expiry wait for the same row.
        image_set = connection.execute(chosen.with_for_update()).first()
        require_unerased(connection, order.concept)
        moment = now()
        if image_set is None:
            raise missing(order.image_set)
        if image_set.expire_time <= moment or image_set.emptied:
            raise ImageSetEmpty(
                f"{order.image_set} holds no images any more. Make another set, and keep it if "
                "several runs are to use it"
            )
        _require_images(connection, order, image_set.id)
        run_id = order.run_id or f"run-{uuid4().hex[:12]}"
        name = TrainingRunName(order.tenant, run_id)
        if connection.execute(RUN_NAMED, {"tenant": order.tenant, "run_id": run_id}).first():
            refusal = AlreadyExists(f"{name} exists already. Choose another id, or none")
            refusal.resource = str(name)
            raise refusal
        self._allowance.require_place(connection, order.tenant)
        row = connection.execute(
            insert(RUNS)
            .values(
                tenant=order.tenant,
                run_id=run_id,
                uid=str(uuid4()),
                concept_id=order.concept.concept,
                image_set_id=order.image_set.image_set,
                image_set=image_set.id,
                base_model_id=order.base_model_id,
                super_category=order.settings.training.super_category,
                key_lock=order.settings.training.key_lock.value,
                settings=order.settings.to_json(),
                description=order.description,
                labels=order.labels,
                exclusive=order.exclusive,
                state=RunState.QUEUED.value,
                step=0,
                attempt=0,
                faults=0,
                fence=0,
                checkpoint_step=0,
                provenance=self._provenance.of(
                    order.tenant, connection.scalars(_DIGESTS, {"image_set": image_set.id})
                ),
                consent_until=order.consent_until,
                consent_seen=None if order.consent_until is None else moment,
                error_reason="",
                error_message="",
                next_sequence=1,
                revision=1,
                create_time=moment,
                update_time=moment,
                traceparent=order.traceparent,
            )
            .returning(RUNS)
        ).one()
        append(connection, row.id, row.tenant, [state_news(RunState.QUEUED, 0)], moment)
        return _run(found_run(connection, order.tenant, name))


def _require_images(connection: Connection, order: RunOrder, image_set: int) -> None:
    counted = select(func.count(), func.count(IMAGES.c.mask_blob)).where(
        IMAGES.c.image_set == image_set
    )
    images, masks = connection.execute(counted).one()
    if images == 0:
        raise ImageSetEmpty(f"{order.image_set} holds no images yet. Upload 1 to 64 of them first")
    if order.settings.mask_source == "UPLOADED" and masks < images:
        raise InvalidArgument.in_field(
            "training_run.settings.mask_source",
            f"{images - masks} of the {images} images of {order.image_set} have no mask. Upload "
            "masks, or choose another source",
        )


def _run(row: AnyRow) -> Run:
    fields: dict[str, Any] = {name: getattr(row, name) for name in _STORED}
    return Run(**{**fields, "state": RunState(row.state)})
