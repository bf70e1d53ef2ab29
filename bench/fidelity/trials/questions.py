"""What is asked, and the ways between which each question lies; the first is the product's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

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


def _learnt(**changes: Any) -> Way:
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
        "context",
        "Which prompt is a concept's context: its own, the super-category's, or between?",
        {
            "its own": Way(),
            "the super-category's at the concept's word": Way(context="SLOT"),
            "there, and elsewhere as far as the gate is shut": Way(context="MIXED"),
            "everywhere, gated": Way(context="SUPER", word="OPEN"),
        },
    ),
    Question(
        "target",
        "Where does the target input lie when training has ended?",
        {
            "at the encoding in the templates": Way(),
            "where the running mean got to": Way(target="RUNNING_MEAN"),
            "at the encoding in later places too": Way(target="CARRIED"),
            "in the templates, a mean ten times as fast": _learnt(decay=0.9),
            "where a mean ten times as fast got to": replace(
                _learnt(decay=0.9), target="RUNNING_MEAN"
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
        "Where does the edit act, and does its gate have a tail?",
        {
            "from the concept's word to the end of the text": Way(),
            "everywhere": Way(places="ALL"),
            "not at the start token": Way(places="NOT_START"),
            "not at the start token, nor at padding": Way(places="WORDS"),
            "at the concept's word alone": Way(places="CONCEPT"),
            "everywhere, a gate without tail": Way(places="ALL", tail=False),
            "from the concept's word, a gate without tail": Way(tail=False),
        },
    ),
    Question(
        "places, GLOBAL",
        "The same under GLOBAL.",
        {
            "from the concept's word to the end of the text": Way(key_lock="GLOBAL"),
            "everywhere": Way(key_lock="GLOBAL", places="ALL"),
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
        "lesson",
        "Where does the edit act in training, how fast is the word embedding, how long the lesson?",
        {
            "the form's: everywhere, 0.006, 100 steps at 0.1": Way(),
            "from the concept's word on": _learnt(places="NAMED"),
            "embedding at 0.002": _learnt(embedding_rate=0.002),
            "embedding at 0.0005": _learnt(embedding_rate=0.0005),
            "400 steps at 0.03, the product's": _learnt(steps=400, output_rate=0.03),
        },
    ),
    Question(
        "emphasis",
        "What does a locked concept gain if its word gets more attention?",
        {
            "as it is": Way(),
            "twice": Way(copies=2),
            "four times": Way(copies=4),
            "eight times": Way(copies=8),
            "four times, in training too": replace(_learnt(copies=4), copies=4),
            "sixteen times, in training too": replace(_learnt(copies=16), copies=16),
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

BIASES = (0.2, 0.35, 0.5, 0.8)
"""The sweep of every way."""
