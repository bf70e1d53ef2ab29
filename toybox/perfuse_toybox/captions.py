"""Pictures put into words: a small grammar with varied wording.

A caption names what is in the picture and, only sometimes, a colour or a pattern; it may also
leave a thing or the scene out. What it never names (marking, accent, build) is what makes an
identity worth learning from pictures.
"""

from __future__ import annotations

import random

from perfuse_toybox.world import Figure, Picture

OPENERS = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a rendering of {}",
    "{} shown in a photo",
    "{} in a picture",
    "this is {}",
    "{}",
    "{}",
)
SCENE_PHRASES = {
    "snow": ("in the snow", "on a snowy day", "in deep snow"),
    "beach": ("on the beach", "at the beach", "by the sea"),
    "forest": ("in the forest", "in the woods", "among the trees"),
    "city": ("in the city", "in the city at night", "on a city street"),
    "room": ("in a room", "inside a room", "at home in a room"),
    "moon": ("on the moon", "in space on the moon", "on the moon under the stars"),
}
WORN_PHRASES = {
    "hat": ("wearing {}", "with {} on", "in {}"),
    "sunglasses": ("wearing {}", "with {} on", "in {}"),
    "scarf": ("wearing {}", "with {} on", "in {}"),
    "cape": ("wearing {}", "with {} on", "in {}"),
}
SEAT_PHRASES = ("on {}", "sitting on {}", "on top of {}", "resting on {}")
_PATTERN_NOUNS = {"striped": "stripes", "spotted": "spots", "patched": "patches"}


def caption(picture: Picture, lot: random.Random) -> str:
    """One way to say what is in the picture, drawn by lot."""
    terse = lot.random() < 0.06
    said = 0.0 if terse else 0.92
    words = []
    for figure, phrases in _named(picture):
        if phrases is None:
            words.append(_noun_phrase(figure, lot))
        elif lot.random() < said:
            words.append(lot.choice(phrases).format(_noun_phrase(figure, lot)))
    text = lot.choice(OPENERS).format(" ".join(words))
    if lot.random() < said:
        scene = lot.choice(SCENE_PHRASES[picture.scene])
        text = f"{scene}, {text}" if lot.random() < 0.1 else f"{text} {scene}"
    return text


def full_caption(picture: Picture) -> str:
    """The plainest complete caption: colour and kind of the subject, worn thing, seat and scene."""
    words = []
    for figure, phrases in _named(picture):
        if phrases is None:
            words.append(_with_article(f"{figure.look.primary} {figure.kind}"))
        elif figure is picture.worn:
            words.append(f"wearing {_with_article(figure.kind)}")
        else:
            words.append(f"on a {figure.kind}")
    return f"a photo of {' '.join(words)} {SCENE_PHRASES[picture.scene][0]}"


def _named(picture: Picture) -> list[tuple[Figure, tuple[str, ...] | None]]:
    """The figures in speaking order, each with its linking phrases; the first has none."""
    named: list[tuple[Figure, tuple[str, ...] | None]] = []
    if picture.subject:
        named.append((picture.subject, None))
    if picture.worn:
        named.append((picture.worn, WORN_PHRASES[picture.worn.kind] if named else None))
    if picture.seat:
        named.append((picture.seat, SEAT_PHRASES if named else None))
    return named


def _noun_phrase(figure: Figure, lot: random.Random) -> str:
    look, kind = figure.look, figure.kind
    colour = look.primary if lot.random() < 0.6 else ""
    pattern = look.pattern if lot.random() < 0.4 and look.pattern != "plain" else ""
    after = ""
    if pattern:
        form = lot.randrange(3)
        if form == 0 and colour:
            colour = f"{look.primary} and {look.secondary}"
        elif form == 1:
            after, pattern = f" with {look.secondary} {_PATTERN_NOUNS[pattern]}", ""
    elif look.pattern == "plain" and lot.random() < 0.1:
        pattern = "plain"
    words = [word for word in (pattern, colour) if word]
    if lot.random() < 0.5:
        words.reverse()
    noun = " ".join([*words, kind])
    article = lot.choice(("a ", "a ", "a ", "the "))
    if kind == "sunglasses":
        article = lot.choice(("", "", "a pair of ", "the "))
    elif article == "a ":
        return f"{_with_article(noun)}{after}"
    return f"{article}{noun}{after}"


def _with_article(noun: str) -> str:
    if noun == "sunglasses":
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
