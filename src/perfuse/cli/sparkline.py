"""A curve in one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve as `width` characters or fewer; each is the mean of as many values.

    Values that are not finite are left out; values that are all the same lie in the middle.

    Args:
        values: from left to right.
        width: characters at most, 1 or more.
    """
    means = _resampled([value for value in values if math.isfinite(value)], width)
    if not means:
        return ""
    low, high = min(means), max(means)
    if high == low:
        return LEVELS[len(LEVELS) // 2 - 1] * len(means)
    top = len(LEVELS) - 1
    return "".join(LEVELS[round((value - low) / (high - low) * top)] for value in means)


def _resampled(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [
        math.fsum(values[begin:end]) / (end - begin) for begin, end in itertools.pairwise(edges)
    ]
