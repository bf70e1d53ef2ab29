"""What is taught and what is asked for: concepts, their pictures, prompts, blends.

Every concept has a look that no training picture of the base has. It is shown alone, in three of
the world's six scenes; the prompts ask for it in the other three, bare and together with worn
things, seats and subjects that it was never shown with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from perfuse_toybox.captions import SCENE_PHRASES
from perfuse_toybox.concepts import SHADES, THRONE, TOM, Concept, held_out_look
from perfuse_toybox.world import KINDS, SCENES, SEATS, WORN, Figure, Look, Picture

REX = Concept("rex", Figure("dog", held_out_look(1, "blue", "white", "patched")))
CAP = Concept("cap", Figure("hat", held_out_look(1, "red", "yellow", "striped")))
CRATE = Concept("crate", Figure("box", held_out_look(1, "pink", "white", "spotted")))
BOLT = Concept("bolt", Figure("robot", held_out_look(2, "green", "orange", "striped")))
BRUIN = Concept("bruin", Figure("bear", held_out_look(2, "black", "yellow", "spotted")))

TAUGHT = (TOM, SHADES, THRONE, REX, CAP, CRATE, BOLT, BRUIN)
"""Four subjects, two worn things, two seats; a form takes the first ones."""

BLENDS = (
    (TOM, SHADES),
    (TOM, THRONE),
    (TOM, SHADES, THRONE),
    (REX, CAP),
    (BOLT, CRATE),
    (BRUIN, CAP, CRATE),
)
"""Concepts that meet in one picture, first the subject."""


@dataclass(frozen=True)
class Asked:
    """One prompt.

    Attributes:
        prompt: With placeholders `<name>`.
        caption: With super-categories in their place; what the evaluator reads.
        picture: What the world's painter makes of it: the concepts' own looks, the prompt's scene.
        figures: Concept's name → `subject`, `worn` or `seat`.
    """

    prompt: str
    caption: str
    picture: Picture
    figures: Mapping[str, str]


def shown(concept: Concept, count: int) -> tuple[Picture, ...]:
    """The pictures that a concept is learned from: alone, in `shown_scenes`."""
    lot = random.Random(f"shown/{concept.name}")
    scenes = shown_scenes(concept)
    return tuple(concept.picture(scenes[index % len(scenes)], lot) for index in range(count))


def shown_scenes(concept: Concept) -> tuple[str, ...]:
    """Three scenes, another three for every concept."""
    return tuple(random.Random(f"scenes/{concept.name}").sample(SCENES, 3))


def figure_of(concept: Concept) -> str:
    """Which of a picture's figures the concept is."""
    kind = concept.super_category
    return "subject" if kind in KINDS else "worn" if kind in WORN else "seat"


def prompts(concept: Concept, count: int) -> tuple[Asked, ...]:
    """Up to 12 prompts: three scenes that were not shown, each bare and in three companies."""
    scenes = [scene for scene in SCENES if scene not in shown_scenes(concept)]
    asked = []
    for index in range(count):
        scene, company = scenes[index % 3], (index // 3 + index % 3) % 4
        asked.append(_asked(concept, scene, company, random.Random(f"{concept.name}/{index}")))
    return tuple(asked)


def blend_prompts(concepts: tuple[Concept, ...], count: int) -> tuple[Asked, ...]:
    """One prompt for each of `count` scenes that names all of the concepts and nothing else."""
    by_figure = {figure_of(concept): concept for concept in concepts}
    figures = {figure: concept.figure for figure, concept in by_figure.items()}
    named = {figure: concept.name for figure, concept in by_figure.items()}
    return tuple(
        _worded(figures, named, scene, random.Random(f"blend/{scene}"), coloured=False)
        for scene in SCENES[:count]
    )


def _asked(concept: Concept, scene: str, company: int, lot: random.Random) -> Asked:
    """`company` 0: bare; 1 to 3: with other figures, depending on what the concept is."""
    own = figure_of(concept)
    others = {
        "subject": ((), ("worn",), ("seat",), ("worn", "seat")),
        "worn": ((), ("subject",), ("subject",), ("subject", "seat")),
        "seat": ((), ("subject",), ("subject",), ("subject", "worn")),
    }[own][company]
    figures = {own: concept.figure}
    for figure in others:
        kinds = {"subject": KINDS, "worn": WORN, "seat": SEATS}[figure]
        look = Look.draw(lot)
        while look.held_out:
            look = Look.draw(lot)
        figures[figure] = Figure(lot.choice(kinds), look)
    return _worded(figures, {own: concept.name}, scene, lot, coloured=company == 2)


def _worded(
    figures: Mapping[str, Figure],
    named: Mapping[str, str],
    scene: str,
    lot: random.Random,
    *,
    coloured: bool,
) -> Asked:
    """The prompt, its caption and its true picture; `coloured`: name the companions' colours."""
    links = {"subject": "{}", "worn": "wearing {}", "seat": "on {}"}
    texts = []
    for with_names in (True, False):
        words = []
        for figure in ("subject", "worn", "seat"):
            if figure not in figures:
                continue
            kind = figures[figure].kind
            noun = kind
            if figure in named:
                noun = f"<{named[figure]}>" if with_names else kind
            elif coloured:
                noun = f"{figures[figure].look.primary} {kind}"
            # A placeholder takes the article of its super-category, as GLOBAL's keys read it.
            phrase = _with_article(noun, kind if figure in named else noun)
            words.append(links[figure].format(phrase) if words else phrase)
        texts.append(f"a photo of {' '.join(words)} {SCENE_PHRASES[scene][0]}")
    picture = Picture(
        figures.get("subject"),
        figures.get("worn"),
        figures.get("seat"),
        scene,
        detail=lot.randrange(2**16),
    )
    return Asked(texts[0], texts[1], picture, {name: figure for figure, name in named.items()})


def _with_article(noun: str, heard: str) -> str:
    if heard.endswith("sunglasses"):
        return noun
    return f"{'an' if heard[0] in 'aeiou' else 'a'} {noun}"
