"""What is asked, and the ways between which each question lies; the first is the product's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from bench.fidelity.trials.way import Learnt, Way


@dataclass(frozen=True)
class Question:
    """One open question of the method.

    Attributes:
        name: Short.
        asks: In a sentence.
        ways: Name → way; all others are compared with the first.
    """

    name: str
    asks: str
    ways: Mapping[str, Way]


def _learnt(**changes: str) -> Way:
    return Way(learnt=Learnt(**changes))


QUESTIONS = (
    Question(
        "places",
        "Does the edit act at the start token and at padding, and does its gate have a tail?",
        {
            "everywhere": Way(),
            "not at the start token": Way(places="NOT_START"),
            "not at padding": Way(places="NOT_PADDING"),
            "at words and end alone": Way(places="WORDS"),
            "at the concept's word alone": Way(places="CONCEPT"),
            "everywhere, a gate without tail": Way(tail=False),
        },
    ),
    Question(
        "keys",
        "Are GLOBAL's keys the super-category prompt's own, or edited?",
        {"own": Way(key_lock="GLOBAL"), "edited": Way(key_lock="GLOBAL", keys="EDITED")},
    ),
    Question(
        "gradient",
        "Does a gradient go through the target input?",
        {
            "none": Way(),
            "as the running mean has it": _learnt(gradient="MEAN"),
            "whole": _learnt(gradient="WHOLE"),
        },
    ),
    Question(
        "counted",
        "Which positions count in C?",
        {
            "first word through end": Way(),
            "all, start and padding too": _learnt(counted="ALL"),
            "words without end": _learnt(counted="NO_END"),
        },
    ),
    Question(
        "outputs",
        "Has o* one vector for each projection, or one for each of its positions?",
        {"projection": Way(), "position": _learnt(outputs="POSITION")},
    ),
    Question(
        "temperature",
        "At which bias and temperature is a concept rendered by default, under each lock?",
        {
            f"{lock}, {temperature:g}": Way(key_lock=lock, temperature=temperature)
            for lock, temperature in product(("LOCAL", "GLOBAL"), (0.15, 0.05, 0.1, 0.25))
        },
    ),
)
"""The cheapest first."""

BIASES = (0.4, 0.6, 0.8)
"""The sweep of every way."""
