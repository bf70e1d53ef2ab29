"""The picture world: what is held out stays out, a seed says all, and whatever differs is seen."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse_toybox.corpus import Corpus, to_pixels, to_sample
from perfuse_toybox.drawing import paint
from perfuse_toybox.world import (
    ACCENTS,
    BUILDS,
    COLOURS,
    KINDS,
    MARKINGS,
    PATTERNS,
    SCENES,
    SEATS,
    SIZE,
    WORN,
    Figure,
    Look,
    Picture,
    draw_picture,
    held_out_picture,
    training_picture,
)

LAWS = settings(max_examples=60, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32)
LOOK = Look("orange", "blue", "plain", 0, "green", 1)
CAT = Picture(Figure("cat", LOOK), None, None, "snow")


def changed(a: Picture, b: Picture) -> int:
    """Pixels in which two pictures differ."""
    return int((paint(a) != paint(b)).any(-1).sum())


def parts(picture: Picture) -> tuple[Figure, ...]:
    return tuple(f for f in (picture.subject, picture.worn, picture.seat) if f)


@LAWS
@given(SEEDS)
def test_training_shows_nothing_held_out(seed: int) -> None:
    picture = training_picture(random.Random(seed))
    assert not picture.held_out
    assert not any(figure.look.held_out for figure in parts(picture))


def test_no_combination_of_evaluation_is_in_training() -> None:
    lot = random.Random(1)
    trained = {training_picture(lot).combination for _ in range(12_000)}
    judged = {held_out_picture(lot).combination for _ in range(500)}
    assert len(judged) > 250
    assert not trained & judged


def test_a_held_out_look_is_in_no_training_picture() -> None:
    lot = random.Random(2)
    trained = {figure.look for _ in range(5000) for figure in parts(training_picture(lot))}
    looks = [Look.draw(lot) for _ in range(2000)]
    held_out = {look for look in looks if look.held_out}
    assert 0.06 < len(held_out) / len(looks) < 0.15
    assert not trained & held_out


@LAWS
@given(SEEDS)
def test_evaluation_pictures_have_a_subject_and_are_held_out(seed: int) -> None:
    picture = held_out_picture(random.Random(seed))
    assert picture.subject is not None
    assert picture.held_out


@LAWS
@given(SEEDS)
def test_a_seed_says_everything(seed: int) -> None:
    first, again = draw_picture(random.Random(seed)), draw_picture(random.Random(seed))
    assert first == again
    assert np.array_equal(paint(first), paint(again))


@LAWS
@given(SEEDS)
def test_a_picture_holds_a_subject_or_one_thing(seed: int) -> None:
    picture = draw_picture(random.Random(seed))
    assert picture.subject is not None or len(parts(picture)) == 1
    assert all(figure.look.primary != figure.look.secondary for figure in parts(picture))
    pixels = paint(picture)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8


@LAWS
@given(SEEDS)
def test_mirrored_is_mirrored(seed: int) -> None:
    picture = draw_picture(random.Random(seed))
    mirrored = replace(picture, mirrored=not picture.mirrored)
    assert np.array_equal(paint(mirrored), paint(picture)[:, ::-1])


@LAWS
@given(SEEDS)
def test_other_looks_in_the_same_place_look_different(seed: int) -> None:
    lot = random.Random(seed)
    picture = replace(draw_picture(lot), subject=Figure(lot.choice(KINDS), Look.draw(lot)))
    other = Look.draw(lot)
    if other.primary in (picture.subject.look.primary, picture.subject.look.secondary):
        return
    assert changed(picture, replace(picture, subject=replace(picture.subject, look=other))) >= 20


def test_drawing_reaches_the_whole_world() -> None:
    lot = random.Random(3)
    pictures = [draw_picture(lot) for _ in range(3000)]
    subjects = [p.subject for p in pictures if p.subject]
    looks = [figure.look for picture in pictures for figure in parts(picture)]
    assert {s.kind for s in subjects} == set(KINDS)
    assert {p.worn.kind for p in pictures if p.worn} == set(WORN)
    assert {p.seat.kind for p in pictures if p.seat} == set(SEATS)
    assert {p.scene for p in pictures} == set(SCENES)
    assert {look.primary for look in looks} == {look.secondary for look in looks} == set(COLOURS)
    assert {look.pattern for look in looks} == set(PATTERNS)
    assert {look.accent for look in looks} == set(ACCENTS)
    assert {look.marking for look in looks} == set(range(MARKINGS))
    assert {look.build for look in looks} == set(range(BUILDS))


@pytest.mark.parametrize(
    ("pictures", "least"),
    [
        ([replace(CAT, subject=Figure(kind, LOOK)) for kind in KINDS], 60),
        ([CAT, *(replace(CAT, worn=Figure(kind, LOOK)) for kind in WORN)], 20),
        ([CAT, *(replace(CAT, seat=Figure(kind, LOOK)) for kind in SEATS)], 60),
        ([Picture(None, Figure(kind, LOOK), None, "snow") for kind in WORN], 20),
        ([Picture(None, None, Figure(kind, LOOK), "snow") for kind in SEATS], 60),
        ([replace(CAT, scene=scene) for scene in SCENES], 400),
    ],
    ids=["subjects", "worn", "seats", "worn alone", "seats alone", "scenes"],
)
def test_every_kind_paints_differently(pictures: list[Picture], least: int) -> None:
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert changed(first, second) >= least


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("trait", "words", "least"),
    [
        ("primary", [c for c in COLOURS if c != LOOK.secondary], 60),
        ("pattern", PATTERNS, 15),
        ("build", range(BUILDS), 4),
        ("accent", ACCENTS, 4),
    ],
)
def test_every_trait_of_a_subject_shows(
    kind: str, trait: str, words: list[object], least: int
) -> None:
    shown = [replace(CAT, subject=Figure(kind, replace(LOOK, **{trait: word}))) for word in words]
    for i, first in enumerate(shown):
        for second in shown[:i]:
            if kind == "robot" and trait == "accent":
                least = 3  # a robot's accent is the tip of its aerial
            assert changed(first, second) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_markings_show(kind: str) -> None:
    marked = [
        paint(replace(CAT, subject=Figure(kind, replace(LOOK, marking=marking)))).tobytes()
        for marking in range(MARKINGS)
    ]
    # Robots and owls carry two of the four.
    assert len(set(marked)) == (2 if kind in ("robot", "owl") else 4)


def test_an_unknown_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="no scene 'sea'"):
        paint(replace(CAT, scene="sea"))


def test_a_corpus_is_its_seed() -> None:
    drawn: list[int] = []
    first, again = Corpus.draw(20, 5, on_progress=drawn.append), Corpus.draw(20, 5)
    assert drawn == list(range(1, 21))
    assert first.pictures == again.pictures
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, Corpus.draw(20, 6).pixels)
    assert not any(picture.held_out for picture in first.pictures)
    for picture, pixels in zip(first.pictures, first.pixels, strict=True):
        assert np.array_equal(paint(picture).transpose(2, 0, 1), pixels.numpy())


def test_samples_give_back_their_pixels() -> None:
    corpus = Corpus.draw(10, 7)
    samples = to_sample(corpus.pixels)
    assert float(samples.abs().max()) <= 1.0
    assert torch.equal(to_pixels(samples), corpus.pixels)
    assert torch.equal(corpus.samples(torch.tensor([3])), samples[3:4])


def test_the_world_is_the_one_the_weights_know() -> None:
    """A changed pixel or split makes the shipped base and evaluator strangers: train both anew."""
    lot = random.Random(9)
    pictures = [draw_picture(lot) for _ in range(200)]
    assert sum(picture.held_out for picture in pictures) == 51
    assert zlib.crc32(b"".join(paint(picture).tobytes() for picture in pictures)) == 1736291037
