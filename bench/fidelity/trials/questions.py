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
        "word",
        "How far is the gate open at the concept's own word, whose encoding its place changes?",
        {
            "by its similarity": Way(),
            "as if that were 1": Way(word="OPEN"),
            "everywhere by the share of it": Way(word="RELATIVE"),
            "1, in the super-category's prompt": Way(
                word="OPEN", places="CONCEPT", context="SUPER"
            ),
        },
    ),
    Question(
        "word, GLOBAL",
        "The same under GLOBAL.",
        {
            "by its similarity": Way(key_lock="GLOBAL"),
            "as if that were 1": Way(key_lock="GLOBAL", word="OPEN"),
        },
    ),
    Question(
        "places",
        "Does the edit act at the start token and at padding, and does its gate have a tail?",
        {
            "everywhere": Way(),
            "not at the start token": Way(places="NOT_START"),
            "not at the start token, nor at padding": Way(places="WORDS"),
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
        "outputs",
        "Has o* one vector for each projection, or one for each of its positions?",
        {"projection": Way(), "position": _learnt(outputs="POSITION")},
    ),
    Question(
        "gradient",
        "Does a gradient go through the target input?",
        {
            "none": Way(),
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
        "temperature",
        "At which bias and temperature is a concept rendered by default, under each lock?",
        {
            f"{lock}, {temperature:g}": Way(key_lock=lock, temperature=temperature)
            for lock, temperature in product(("LOCAL", "GLOBAL"), (0.15, 0.1, 0.25))
        },
    ),
)
"""The product's own way comes first in each."""

BIASES = (0.5, 0.8)
"""The sweep of every way; those of the quick form that lie within what is offered."""
