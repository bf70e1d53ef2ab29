"""Captions: every word of the world can be said, what is said is true, identities stay unsaid."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse_toybox.captions import OPENERS, SCENE_PHRASES, caption, full_caption
from perfuse_toybox.world import (
    ACCENTS,
    BUILDS,
    COLOURS,
    KINDS,
    MARKINGS,
    PATTERNS,
    SCENES,
    SEATS,
    WORN,
    Figure,
    Look,
    Picture,
    draw_picture,
    held_out_picture,
)

LAWS = settings(max_examples=150, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32)
PATTERN_WORDS = {
    "plain": {"plain"},
    "striped": {"striped", "stripes"},
    "spotted": {"spotted", "spots"},
    "patched": {"patched", "patches"},
}
GLASSES_WITH_ARTICLE = re.compile(
    rf"\ban? (({'|'.join([*COLOURS, *PATTERNS, 'and'])}) )*sunglasses"
)
A_CAT = Figure("cat", Look("orange", "blue", "striped", 0, "green", 1))


def spoken(count: int, seed: int = 1) -> list[tuple[Picture, str]]:
    lot = random.Random(seed)
    pictures = [draw_picture(lot) for _ in range(count)]
    return [(picture, caption(picture, lot)) for picture in pictures]


def figures(picture: Picture) -> dict[str, Figure]:
    named = {"subject": picture.subject, "worn": picture.worn, "seat": picture.seat}
    return {name: figure for name, figure in named.items() if figure}


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


def test_every_word_of_the_world_can_be_said() -> None:
    captions = [text for _, text in spoken(5000)]
    said = set().union(*map(words, captions))
    assert said >= {*KINDS, *WORN, *SEATS, *COLOURS}
    assert said >= set().union(*PATTERN_WORDS.values())
    for phrases in SCENE_PHRASES.values():
        for phrase in phrases:
            assert any(phrase in text for text in captions)
    for opener in OPENERS:
        around = opener.replace("{}", "").strip()
        assert any(around in text for text in captions)
    assert set(SCENE_PHRASES) == set(SCENES)


@LAWS
@given(SEEDS, SEEDS, st.data())
def test_identity_is_never_said(drawn: int, wording: int, data: st.DataObject) -> None:
    """Nothing of a caption depends on marking, accent, build, or on where things stand."""
    picture = draw_picture(random.Random(drawn))
    disguised = replace(
        picture,
        shift=data.draw(st.integers(-3, 3)),
        mirrored=data.draw(st.booleans()),
        detail=data.draw(st.integers(0, 2**16 - 1)),
        **{
            name: replace(
                figure,
                look=replace(
                    figure.look,
                    marking=data.draw(st.integers(0, MARKINGS - 1)),
                    accent=data.draw(st.sampled_from(ACCENTS)),
                    build=data.draw(st.integers(0, BUILDS - 1)),
                ),
            )
            for name, figure in figures(picture).items()
        },
    )
    assert caption(disguised, random.Random(wording)) == caption(picture, random.Random(wording))
    assert full_caption(disguised) == full_caption(picture)


@LAWS
@given(SEEDS, SEEDS)
def test_what_is_said_is_true(drawn: int, wording: int) -> None:
    picture = draw_picture(random.Random(drawn))
    text = caption(picture, random.Random(wording))
    there = figures(picture).values()
    looks = [figure.look for figure in there]
    said = words(text)
    assert said & {*KINDS, *WORN, *SEATS} <= {figure.kind for figure in there}
    assert said & {*COLOURS} <= {c for look in looks for c in (look.primary, look.secondary)}
    for pattern in PATTERNS:
        if said & PATTERN_WORDS[pattern]:
            assert pattern in [look.pattern for look in looks]
    for scene, phrases in SCENE_PHRASES.items():
        if scene != picture.scene:
            assert not any(
                text.endswith(phrase) or text.startswith(f"{phrase},") for phrase in phrases
            )


@LAWS
@given(SEEDS, SEEDS)
def test_a_plain_thing_never_names_its_second_colour(drawn: int, wording: int) -> None:
    lot = random.Random(drawn)
    look = replace(Look.draw(lot), pattern="plain")
    picture = Picture(Figure(lot.choice(KINDS), look), None, None, lot.choice(SCENES))
    assert look.secondary not in words(caption(picture, random.Random(wording)))


@LAWS
@given(SEEDS, SEEDS)
def test_articles_agree(drawn: int, wording: int) -> None:
    lot = random.Random(drawn)
    with_subject = held_out_picture(lot)
    for text in (caption(draw_picture(lot), random.Random(wording)), full_caption(with_subject)):
        assert not re.search(r"\ba [aeiou]", text)
        assert not re.search(r"\ban [^aeiou]", text)
        # A pair is counted; the glasses themselves take no article of one.
        assert not GLASSES_WITH_ARTICLE.search(text)
        assert text == " ".join(text.split())


@LAWS
@given(SEEDS)
def test_the_full_caption_says_what_a_base_is_judged_by(drawn: int) -> None:
    picture = held_out_picture(random.Random(drawn))
    assert picture.subject is not None
    said = words(full_caption(picture))
    assert {figure.kind for figure in figures(picture).values()} <= said
    assert said & {*COLOURS} == {picture.subject.look.primary}
    assert words(SCENE_PHRASES[picture.scene][0]) <= said


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (Picture(A_CAT, None, None, "moon"), "a photo of an orange cat on the moon"),
        (
            Picture(A_CAT, replace(A_CAT, kind="sunglasses"), replace(A_CAT, kind="box"), "beach"),
            "a photo of an orange cat wearing sunglasses on a box on the beach",
        ),
        (
            Picture(None, replace(A_CAT, kind="hat"), None, "city"),
            "a photo of an orange hat in the city",
        ),
    ],
)
def test_full_captions_read(picture: Picture, text: str) -> None:
    assert full_caption(picture) == text


def test_wording_varies_and_is_drawn_by_lot() -> None:
    picture = Picture(A_CAT, replace(A_CAT, kind="hat"), None, "snow")
    wordings = {caption(picture, random.Random(seed)) for seed in range(300)}
    assert len(wordings) > 200
    assert caption(picture, random.Random(4)) == caption(picture, random.Random(4))


def test_most_captions_leave_the_second_colour_and_the_pattern_unsaid() -> None:
    alone = [
        (Picture(picture.subject, None, None, picture.scene), random.Random(seed))
        for seed, (picture, _) in enumerate(spoken(3000, seed=2))
        if picture.subject
    ]
    texts = [(picture.subject.look, words(caption(picture, lot))) for picture, lot in alone]
    second = sum(look.secondary in said for look, said in texts) / len(texts)
    pattern = sum(bool(PATTERN_WORDS[look.pattern] & said) for look, said in texts) / len(texts)
    colour = sum(look.primary in said for look, said in texts) / len(texts)
    assert 0.05 < second < 0.25
    assert 0.2 < pattern < 0.5
    assert 0.5 < colour < 0.8
