"""What an adapter's file says about its training, within the limits of the format."""

from __future__ import annotations

import json
from collections.abc import Sequence

from perfuse.adapter.limits import MAX_TRAINING_TEXT
from perfuse_trainer.learning.settings import TrainingSettings

Curve = Sequence[tuple[int, float]]
"""(step, validation loss) pairs in order of steps."""


def training_summary(
    settings: TrainingSettings, *, steps: int, pictures: int, curve: Curve
) -> dict[str, str | int | float]:
    """The entries of `AdapterMetadata.training`.

    Args:
        settings: Of the run.
        steps: After which the adapter was taken.
        pictures: It was trained with.
        curve: Of the run.
    """
    summary: dict[str, str | int | float] = {
        "steps": steps,
        "pictures": pictures,
        "seed": settings.seed,
    }
    if curve:
        summary["validation_start"] = round(curve[0][1], 6)
        summary["validation_best"] = round(min(value for _, value in curve), 6)
        summary["validation_curve"] = curve_text(curve)
    return summary


def curve_text(curve: Curve, limit: int = MAX_TRAINING_TEXT) -> str:
    """A curve as JSON, `[[step,loss],...]` with four digits, in at most `limit` characters.

    A curve that does not fit is thinned evenly; its first, best and last points stay.
    """
    best = min(range(len(curve)), key=lambda index: curve[index][1])
    last = len(curve) - 1
    # No point takes fewer than six characters, [0,1],
    for count in range(min(len(curve), limit // 6), 1, -1):
        kept = {round(place * last / (count - 1)) for place in range(count)} | {best}
        points = [[curve[index][0], float(f"{curve[index][1]:.4g}")] for index in sorted(kept)]
        text = json.dumps(points, separators=(",", ":"))
        if len(text) <= limit:
            return text
    return json.dumps([[curve[best][0], float(f"{curve[best][1]:.4g}")]], separators=(",", ":"))
