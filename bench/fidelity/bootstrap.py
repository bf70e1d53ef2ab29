"""Confidence intervals: concepts drawn again first, and within each its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 95.0


class Bootstrap:
    """The same draws for every quantity, so that differences are of pairs.

    Pictures of one concept resemble each other more than those of two, so concepts are drawn with
    replacement, and for each drawn one its pictures (prompt and seed) with replacement.

    Args:
        concepts: K.
        rows: R pictures of each.
        seed: Of the draws.
    """

    def __init__(self, concepts: int, rows: int, seed: int = 7) -> None:
        lot = np.random.default_rng(seed)
        chosen = lot.integers(concepts, size=(RESAMPLES, concepts, 1))
        pictures = lot.integers(rows, size=(RESAMPLES, concepts, rows))
        # Weights, not copies: how often each picture is drawn.
        self._drawn = np.zeros((RESAMPLES, concepts, rows))
        np.add.at(self._drawn, (np.arange(RESAMPLES)[:, None, None], chosen, pictures), 1.0)

    def means(self, values: Array) -> Array:
        """`[..., K, R]` to `[..., 1 + RESAMPLES]`: the mean as it is, then of every draw.

        What does not apply to a picture is NaN and is left out.
        """
        values = np.asarray(values, np.float64)
        there = np.isfinite(values)
        clean = np.where(there, values, 0.0)
        weight = np.einsum("...kr,nkr->...n", there.astype(float), self._drawn)
        total = np.einsum("...kr,nkr->...n", clean, self._drawn)
        counted = there.sum((-2, -1))
        whole = clean.sum((-2, -1)) / np.where(counted, counted, np.nan)
        return np.concatenate(
            [np.asarray(whole)[..., None], total / np.where(weight, weight, np.nan)], -1
        )


def interval(samples: Array) -> dict[str, float | None]:
    """The value and its 95 % interval, from `[1 + RESAMPLES]`; None where there is none."""
    drawn = samples[1:][np.isfinite(samples[1:])]
    if not np.isfinite(samples[0]) or len(drawn) < len(samples) / 2:
        return {"value": None, "low": None, "high": None}
    edge = (100.0 - LEVEL) / 2
    low, high = np.percentile(drawn, [edge, 100.0 - edge])
    return {
        "value": round(float(samples[0]), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def ahead(ours: tuple[Array, Array], theirs: tuple[Array, Array]) -> Array:
    """How much higher our text similarity is at equal likeness, `[1 + RESAMPLES]`.

    Args:
        ours: Likeness and text similarity of a sweep, `[S, 1 + RESAMPLES]` each.
        theirs: Likewise; S may be 1.

    Returns:
        The mean difference of the two fronts over the likenesses that both reach; NaN where they
        share none. Each front is the envelope of its interpolated sweep: the highest text
        similarity at this likeness or a higher one, since a knob may be turned past its best.
    """
    found = np.full(ours[0].shape[-1], np.nan)
    for draw in range(len(found)):
        fronts = []
        for likeness, text in (ours, theirs):
            order = np.argsort(likeness[:, draw])
            fronts.append((likeness[order, draw], text[order, draw]))
        low = max(front[0][0] for front in fronts)
        high = min(front[0][-1] for front in fronts)
        if low <= high:
            at = np.linspace(low, high, 11)
            first, second = (_envelope(at, *front) for front in fronts)
            found[draw] = float((first - second).mean())
    return found


def compare(
    ours: tuple[str, tuple[Array, Array]], theirs: tuple[str, tuple[Array, Array]]
) -> dict[str, dict[str, Any]]:
    """Two fronts, each with its name, both ways: text at equal likeness, likeness at equal text.

    One front may lie so far above the other that they share no likeness; then the second says so.
    """
    names = f"{ours[0]} − {theirs[0]}"
    text = interval(ahead(ours[1], theirs[1]))
    likeness = interval(ahead(ours[1][::-1], theirs[1][::-1]))
    return {
        f"text at equal likeness, {names}": {"verdict": verdict(text), **text},
        f"likeness at equal text, {names}": {"verdict": verdict(likeness), **likeness},
    }


def _envelope(at: Array, likeness: Array, text: Array) -> Array:
    """The highest text similarity that a sweep reaches at each likeness or above it."""
    beyond = likeness >= at[:, None]
    best = np.where(beyond, text, -np.inf).max(-1)
    return np.maximum(best, np.interp(at, likeness, text))


def verdict(found: dict[str, Any]) -> str:
    """`holds` where the whole interval is above 0, `does not hold` below, else `undecided`."""
    if found["value"] is None:
        return "undecided"
    if found["low"] > 0:
        return "holds"
    return "does not hold" if found["high"] < 0 else "undecided"
