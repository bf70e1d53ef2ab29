"""What can be read without a picture: similarities, gates, keys and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.fidelity.companions import moved
from bench.fidelity.curriculum import TAUGHT, prompts
from bench.fidelity.lab import Lab
from bench.fidelity.lessons import latents_of
from bench.fidelity.trials.attention import attention
from bench.fidelity.trials.covariances import with_covariance
from bench.fidelity.trials.learning import State, gradients_of
from bench.fidelity.trials.planning import planned, similarities
from bench.fidelity.trials.way import Learnt, Way
from perfuse.attach import Prompt, plan, tokenise
from perfuse_toybox.concepts import Concept
from perfuse_trainer.learning.draws import Draws
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.templates import TEMPLATES

BATCHES = 8
"""Over which gradients are compared."""

BIAS = 0.4
"""At which attention is read; the product's default."""

SHUT = 50.0
"""A bias at which no gate is open."""

FIRST = 5
"""The last position at which a template or a prompt names a concept first."""

States = Callable[[Concept], State]


def read(lab: Lab, state_of: States, learned_of: States, captions: int) -> dict[str, Any]:
    """Everything, as JSON.

    Args:
        lab: Gives form, base and concepts.
        state_of: What is rendered of a concept.
        learned_of: Likewise, as training left it.
        captions: Behind a C of a trial's own.
    """
    by_place = {
        counted: similarity(lab, state_of, counted, captions)
        for counted in ("WORDS", "ALL", "NO_END")
    }
    return {
        "similarity": by_place,
        "gates": gates(by_place["WORDS"]),
        "at the concept's word": at_words(lab, state_of),
        "with the gate shut": shut(lab, state_of),
        "edited keys": edited_keys(lab, state_of),
        "gradient": gradient(lab, learned_of),
        "attention": attention(lab, BIAS),
        "slots": slots(lab),
    }


def similarity(lab: Lab, state_of: States, counted: str, captions: int) -> dict[str, Any]:
    """s by place of a prompt: the mean, and the mean size, over concepts and prompts."""
    base = with_covariance(lab.base, counted, captions)
    found: dict[str, list[float]] = {}
    for concept in lab.concepts:
        for one in prompts(concept, lab.form.prompts):
            for place, values in similarities(base, one, state_of(concept)).items():
                found.setdefault(place, []).extend(values)
    return {
        place: {
            "mean": round(float(np.mean(values)), 3),
            "size": round(float(np.abs(values).mean()), 3),
        }
        for place, values in found.items()
    }


def at_words(lab: Lab, state_of: States) -> dict[str, dict[str, float]]:
    """s at the concept's word, prompt by prompt."""
    found = {}
    for concept in lab.concepts:
        rows = {}
        for one in prompts(concept, 12):
            (s,) = similarities(lab.base, one, state_of(concept))["concept"]
            rows[one.prompt] = round(s, 3)
        found[concept.name] = rows
    return found


def shut(lab: Lab, state_of: States) -> dict[str, dict[str, float]]:
    """How far values at the concept's word are from the super-category's with the gate shut.

    That is what the word embedding alone does there, which a bias cannot turn down: the mean of
    |ΔV| / |V| over prompts that name the concept first, and over those that name it later.
    """
    found: dict[str, dict[str, float]] = {}
    for concept in lab.concepts:
        gaps: dict[str, list[float]] = {"named first": [], "named later": []}
        for one in prompts(concept, 12):
            slot = _slot(lab, concept, one.prompt)
            made = planned(lab.base, one, state_of(concept), Way(), SHUT)
            own = plan(lab.base, one.caption)
            gap = moved([made], [own], [slot])["values"]["concept"]
            first = slot <= FIRST
            gaps["named first" if first else "named later"].append(gap)
        found[concept.name] = {
            name: round(float(np.mean(rows)), 3) for name, rows in gaps.items() if rows
        }
    return found


def gates(places: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The gate at each place's mean similarity, by bias and temperature."""
    return {
        f"{bias:g}, {temperature:g}": {
            place: round(float(1 / (1 + np.exp((bias - found["mean"]) / temperature))), 3)
            for place, found in places.items()
        }
        for bias in (0.4, 0.5, 0.6, 0.7, 0.8)
        for temperature in (0.05, 0.1, 0.15, 0.25)
    }


def edited_keys(lab: Lab, state_of: States) -> dict[str, float]:
    """How far GLOBAL's keys move if they are edited, as a share of their length, by place."""
    found: dict[str, list[float]] = {}
    for concept in lab.concepts:
        state, asked = state_of(concept), prompts(concept, lab.form.prompts)
        own, edited = (
            [planned(lab.base, one, state, Way(key_lock="GLOBAL", keys=keys), 0.5) for one in asked]
            for keys in ("PLAIN", "EDITED")
        )
        places = [_slot(lab, concept, one.prompt) for one in asked]
        for place, gap in moved(edited, own, places)["keys"].items():
            found.setdefault(place, []).append(gap)
    return {place: round(float(np.mean(gaps)), 4) for place, gaps in found.items()}


def gradient(lab: Lab, learned_of: States) -> dict[str, dict[str, float]]:
    """The word embedding's gradient with i* passing it on against without, at the lesson's end."""
    found = {}
    lesson = lab.lesson()
    for concept in lab.concepts:
        settings = lesson.settings(concept)
        draws = Draws(lab.base, latents_of(lab.base, concept, lesson), settings)
        learning = Learning(lab.base, settings, draws.step(0).templates)
        state = learned_of(concept)
        learning.load(state | {"key_output": learning.key_output})
        # Of batches that the lesson has not had.
        batches = [draws.step(lesson.steps + number) for number in range(BATCHES)]
        without, whole = (
            torch.stack([gradients_of(lab.base, learning, one, learnt) for one in batches])
            for learnt in (Learnt(), Learnt(gradient="WHOLE"))
        )
        alike = torch.cosine_similarity(without.mean(0), whole.mean(0), dim=0)
        noise = (without - without.mean(0)).norm(dim=-1).mean()
        found[concept.name] = {
            "ratio of lengths": round(float(whole.mean(0).norm() / without.mean(0).norm()), 3),
            "cosine": round(float(alike), 3),
            "difference to batches' noise": round(
                float((whole - without).mean(0).norm() / noise), 3
            ),
        }
    return found


def slots(lab: Lab) -> dict[str, Any]:
    """Positions of the concept's word in the templates, and the share of prompts elsewhere."""
    name = "concept"
    taught = sorted(
        {
            tokenise(lab.base, Prompt.parse(text.format(f"<{name}>"), [name])).slots[0].position
            for text in TEMPLATES
        }
    )
    elsewhere = {
        concept.name: round(
            float(
                np.mean(
                    [_slot(lab, concept, one.prompt) not in taught for one in prompts(concept, 12)]
                )
            ),
            3,
        )
        for concept in TAUGHT
    }
    return {"templates": taught, "prompts elsewhere": elsewhere}


def _slot(lab: Lab, concept: Concept, prompt: str) -> int:
    tokens = tokenise(lab.base, Prompt.parse(prompt, [concept.name]))
    return tokens.slots[0].position
