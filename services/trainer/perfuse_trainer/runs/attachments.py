"""What a finished run's version brings with its adapter: chosen previews, and the curve.

A run may tell more of itself than a version keeps. Of previews those of the last step always stay,
of the others as many as fit, evenly over the training; of the curve the first point, the last, the
one with the lowest loss, and others evenly between. What an attempt after a worker's death told
again counts once. A finished run tells nothing more, so that each try to publish it chooses alike.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import bindparam, select

from perfuse.client.attachments import (
    MAX_CURVE_POINTS,
    MAX_PREVIEW_BYTES,
    MAX_PREVIEWS,
    MAX_PREVIEWS_BYTES,
    CurvePoint,
)
from perfuse.errors import DataLoss
from perfuse.storage.database import AnyRow, Database
from perfuse_trainer.resources import EventKind
from perfuse_trainer.tables import EVENTS
from perfuse_trainer.vault import Vault

T = TypeVar("T")
_log = logging.getLogger(__name__)

_KINDS = (EventKind.VALIDATION.value, EventKind.SIMILARITY.value, EventKind.PREVIEW.value)
_LEARNED = (
    select(EVENTS.c.kind, EVENTS.c.body, EVENTS.c.blob)
    .where(EVENTS.c.run == bindparam("run"), EVENTS.c.kind.in_(_KINDS))
    .order_by(EVENTS.c.sequence)
)


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is to be published.

    Attributes:
        previews: File, step and caption of each, in the order of their making.
        curve: By step.
    """

    previews: Sequence[tuple[bytes, int, str]] = field(default=(), repr=False)
    curve: Sequence[CurvePoint] = ()


def attachments_of(database: Database, vault: Vault, run: AnyRow) -> Attachments:
    """What a finished run's version brings with it.

    Args:
        database: With the Trainer's tables.
        vault: Of the run's files.
        run: Its row.

    Raises:
        Unavailable: database or store do not answer.
    """
    asked = {"run": run.id}
    rows = database.read(lambda connection: connection.execute(_LEARNED, asked).all())
    points: dict[int, dict[str, Any]] = {}
    drawn: dict[int, dict[str, str]] = {}
    for kind, body, blob in rows:
        step = body["step"]
        if kind == EventKind.VALIDATION.value:
            points.setdefault(step, {})["validation_loss"] = body["loss"]
        elif kind == EventKind.SIMILARITY.value:
            points.setdefault(step, {})["similarity"] = body["cosine"]
        elif blob is not None:
            drawn.setdefault(step, {})[body["prompt"]] = blob
    curve = [CurvePoint(step=step, **points[step]) for step in sorted(points)]

    def read(blob: str) -> bytes | None:
        try:
            return vault.get(run.tenant, blob)
        except DataLoss:
            # The adapter is what the run was for.
            _log.error("run %s is published without a preview that the store has lost", run.run_id)
            return None

    return Attachments(chosen_previews(drawn, read), chosen_points(curve))


def chosen_points(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """At most `MAX_CURVE_POINTS` of a curve, by step, without what is no number."""
    sound = [
        point
        for point in curve
        if all(
            value is None or math.isfinite(value)
            for value in (point.validation_loss, point.similarity)
        )
    ]
    if len(sound) <= MAX_CURVE_POINTS:
        return sound
    chosen = {point.step: point for point in evenly(sound, MAX_CURVE_POINTS - 1)}
    losses = [point for point in sound if point.validation_loss is not None]
    if losses:
        best = min(losses, key=lambda point: (point.validation_loss, point.step))
        chosen[best.step] = best
    return [chosen[step] for step in sorted(chosen)]


def chosen_previews(
    drawn: dict[int, dict[str, str]], read: Callable[[str], bytes | None]
) -> list[tuple[bytes, int, str]]:
    """As many previews as a version keeps.

    Args:
        drawn: Step → prompt → file.
        read: The bytes of a file; None where there are none.

    Returns:
        Bytes, step and prompt of each.
    """
    steps = [step for step in sorted(drawn) if drawn[step]]
    if not steps:
        return []
    room = MAX_PREVIEWS // max(len(prompts) for prompts in drawn.values())
    files: dict[str, bytes | None] = {}

    def of(step: int) -> list[tuple[bytes, int, str]]:
        found = []
        for prompt, blob in drawn[step].items():
            if blob not in files:
                files[blob] = read(blob)
            picture = files[blob]
            if picture is not None and len(picture) <= MAX_PREVIEW_BYTES:
                found.append((picture, step, prompt))
        return found

    for count in range(min(room, len(steps)), 0, -1):
        chosen = [each for step in evenly(steps, count) for each in of(step)]
        if sum(len(picture) for picture, _, _ in chosen) <= MAX_PREVIEWS_BYTES:
            return chosen
    # Not even those of the last step fit.
    chosen, left = [], MAX_PREVIEWS_BYTES
    for each in of(steps[-1]):
        if len(each[0]) <= left:
            chosen.append(each)
            left -= len(each[0])
    return chosen


def evenly(values: Sequence[T], count: int) -> list[T]:
    """`count` of them, or all, at even distances in their order; always the last."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[index * (len(values) - 1) // (count - 1)] for index in range(count)]
