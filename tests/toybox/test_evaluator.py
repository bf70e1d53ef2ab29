"""The evaluator's verdicts mean something: shipped weights, judged on held-out true pictures."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from perfuse.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, WrongShape
from perfuse_toybox import evaluator as evaluator_module
from perfuse_toybox.captions import caption, full_caption
from perfuse_toybox.corpus import Corpus, to_pixels, to_sample
from perfuse_toybox.drawing import paint
from perfuse_toybox.evaluator import (
    BAR,
    SHIPPED,
    Evaluator,
    absence_accuracy,
    attribute_accuracy,
    unseen_picture,
)
from perfuse_toybox.evaluator_attributes import (
    ABSENT,
    HEADS,
    NONE,
    READ,
    Reading,
    identity_heads,
    targets,
    words_of,
)
from perfuse_toybox.evaluator_towers import Vocabulary
from perfuse_toybox.evaluator_training import EvaluatorRecipe, roughened, train_evaluator
from perfuse_toybox.world import (
    COLOURS,
    KINDS,
    SCENES,
    Figure,
    Look,
    Picture,
    draw_picture,
    held_out_picture,
)

BRIEF = EvaluatorRecipe(steps=4, batch=8, keep_every=2)


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator.load()


@pytest.fixture(scope="module")
def judged() -> Corpus:
    """600 true pictures whose combinations no training picture shows."""
    return Corpus.draw(600, 20_000, held_out_picture)


@pytest.fixture(scope="module")
def unseen() -> Corpus:
    """300 true pictures kept from training for any reason, some without a subject."""
    return Corpus.draw(300, 20_001, unseen_picture)


def pixels_of(*pictures: Picture) -> torch.Tensor:
    return torch.stack([torch.from_numpy(paint(p).transpose(2, 0, 1).copy()) for p in pictures])


# Below this a verdict means nothing.
BAR_FOR_TRUE = 0.97
BAR_FOR_ROUGH = 0.93


def test_every_attribute_is_read_right(evaluator: Evaluator, judged: Corpus) -> None:
    shares = attribute_accuracy(judged.pictures, judged.pixels, evaluator, tuple(READ))
    assert set(shares) == set(READ)
    assert all(share >= BAR_FOR_TRUE for share in shares.values()), shares


def test_absence_is_read_right(evaluator: Evaluator, unseen: Corpus) -> None:
    shares = absence_accuracy(unseen.pictures, unseen.pixels, evaluator)
    assert set(shares) == {"kind", "worn", "seat"}
    assert all(share >= BAR_FOR_TRUE for share in shares.values()), shares


def test_pictures_a_little_off_are_still_read(evaluator: Evaluator, judged: Corpus) -> None:
    rough = roughened(to_sample(judged.pixels), torch.Generator().manual_seed(3))
    shares = attribute_accuracy(judged.pictures, to_pixels(rough), evaluator)
    assert set(shares) == set(BAR)
    assert all(share >= BAR_FOR_ROUGH for share in shares.values()), shares


def test_wrong_pictures_fail(evaluator: Evaluator, judged: Corpus) -> None:
    """The verdict falls to chance when every picture shows what its neighbour was asked for."""
    shares = attribute_accuracy(judged.pictures, judged.pixels.roll(1, 0), evaluator)
    for name, share in shares.items():
        assert share < 2.0 / (len(HEADS[READ[name]]) - 1), name


def test_noise_is_not_read_with_confidence(evaluator: Evaluator, judged: Corpus) -> None:
    lot = torch.Generator().manual_seed(4)
    noise = torch.randint(0, 256, (200, 3, 32, 32), generator=lot, dtype=torch.uint8)
    pictures = judged.pictures[:200]
    assert attribute_accuracy(pictures, noise, evaluator)["colour"] < 0.3


# Similarity.


def test_embeddings_are_unit_vectors_of_one_width(evaluator: Evaluator, judged: Corpus) -> None:
    images = evaluator.image_embedding(judged.pixels[:5])
    texts = evaluator.text_embedding(["a photo of a cat", "an owl on the moon"])
    assert images.dtype == texts.dtype == torch.float32
    assert images.shape[1] == texts.shape[1]
    for embedding in (images, texts):
        assert torch.allclose(embedding.norm(dim=-1), torch.ones(len(embedding)), atol=1e-5)


def test_a_row_does_not_depend_on_its_batch(evaluator: Evaluator, judged: Corpus) -> None:
    captions = [full_caption(picture) for picture in judged.pictures[:6]] + ["a cat"]
    together = evaluator.text_embedding(captions)
    images = evaluator.image_embedding(judged.pixels[:300])
    for row in (0, 5, 6):
        alone = evaluator.text_embedding(captions[row : row + 1])[0]
        assert torch.allclose(alone, together[row], atol=1e-5)
        one = evaluator.image_embedding(judged.pixels[row : row + 1])[0]
        assert torch.allclose(one, images[row], atol=1e-5)


def test_a_picture_is_most_like_itself(evaluator: Evaluator, judged: Corpus) -> None:
    same = evaluator.image_similarity(judged.pixels[:50], judged.pixels[:50])
    assert torch.allclose(same, torch.ones(50), atol=1e-5)
    others = evaluator.image_similarity(judged.pixels[:1], judged.pixels[1:50])
    assert others.shape == (49,)
    assert float(others.max()) < 1.0


def test_the_true_caption_beats_a_wrong_one(evaluator: Evaluator, judged: Corpus) -> None:
    lot = random.Random(6)
    for say in (full_caption, lambda picture: caption(picture, lot)):
        true = [say(picture) for picture in judged.pictures]
        wrong = true[1:] + true[:1]
        gap = evaluator.text_similarity(judged.pixels, true) - evaluator.text_similarity(
            judged.pixels, wrong
        )
        assert float((gap > 0).float().mean()) >= 0.95


@pytest.mark.parametrize("trait", ["kind", "primary", "scene"])
def test_captions_with_one_wrong_word_are_told_apart(
    evaluator: Evaluator, judged: Corpus, trait: str
) -> None:
    lot = random.Random(7)

    def spoilt(picture: Picture) -> Picture:
        subject = picture.subject
        assert subject is not None
        if trait == "scene":
            return replace(picture, scene=lot.choice([s for s in SCENES if s != picture.scene]))
        if trait == "kind":
            kind = lot.choice([k for k in KINDS if k != subject.kind])
            return replace(picture, subject=replace(subject, kind=kind))
        colour = lot.choice([c for c in COLOURS if c != subject.look.primary])
        return replace(
            picture, subject=replace(subject, look=replace(subject.look, primary=colour))
        )

    true = evaluator.text_similarity(judged.pixels, [full_caption(p) for p in judged.pictures])
    wrong = evaluator.text_similarity(
        judged.pixels, [full_caption(spoilt(p)) for p in judged.pictures]
    )
    assert float((true > wrong).float().mean()) >= 0.9


def other_settings(identity: Figure, lot: random.Random, count: int) -> list[Picture]:
    """The same subject with other things around it."""
    drawn = [replace(draw_picture(lot), subject=identity) for _ in range(count)]
    return [replace(p, worn=p.worn and Figure(p.worn.kind, Look.draw(lot))) for p in drawn]


@pytest.mark.parametrize("measure", ["image_similarity", "identity_similarity"])
def test_one_identity_is_more_alike_than_two(evaluator: Evaluator, measure: str) -> None:
    """Two pictures of one cat in two settings, against another cat in the second setting."""
    lot = random.Random(8)
    wins, trials = 0, 150
    firsts, sames, others = [], [], []
    for _ in range(trials):
        kind = lot.choice(KINDS)
        first, same = other_settings(Figure(kind, Look.draw(lot)), lot, 2)
        firsts.append(first)
        sames.append(same)
        others.append(replace(same, subject=Figure(kind, Look.draw(lot))))
    similarity = getattr(evaluator, measure)
    anchor = pixels_of(*firsts)
    gap = similarity(anchor, pixels_of(*sames)) - similarity(anchor, pixels_of(*others))
    wins = int((gap > 0).sum())
    assert wins / trials >= 0.9


def test_identity_is_judged_whatever_is_around_it(evaluator: Evaluator) -> None:
    lot = random.Random(9)
    look, other = (
        Look("red", "white", "striped", 2, "blue", 1),
        Look("blue", "black", "plain", 0, "pink", 2),
    )
    cats = pixels_of(*other_settings(Figure("cat", look), lot, 20))
    dogs = pixels_of(*other_settings(Figure("dog", other), lot, 20))
    same = evaluator.identity_similarity(cats[:1], cats[1:])
    different = evaluator.identity_similarity(cats, dogs)
    assert float(same.min()) > float(different.max())
    assert float(same.max()) <= 1.0
    assert float(different.min()) >= 0.0


@pytest.mark.parametrize("figure", ["worn", "seat"])
def test_identity_of_things(evaluator: Evaluator, figure: str) -> None:
    lot = random.Random(10)
    kind = {"worn": "hat", "seat": "chair"}[figure]
    one = Figure(kind, Look("red", "white", "spotted", 1, "blue", 1))
    two = Figure(kind, Look("green", "black", "plain", 0, "blue", 0))
    around = [replace(held_out_picture(lot), worn=None, seat=None) for _ in range(30)]
    first = pixels_of(*(replace(p, **{figure: one}) for p in around))
    second = pixels_of(*(replace(p, **{figure: two}) for p in around))
    same = evaluator.identity_similarity(first[:15], first[15:], figure)
    assert float(same.mean()) > float(evaluator.identity_similarity(first, second, figure).max())


# The words.


def test_readings_speak_the_words_of_the_world(evaluator: Evaluator, unseen: Corpus) -> None:
    readings = evaluator.read(unseen.pixels)
    assert len(readings) == len(unseen)
    names = [field.name for field in fields(Reading) if field.name != "probabilities"]
    assert names == list(READ)
    for reading in readings:
        assert set(reading.probabilities) == set(READ)
        assert all(0.0 <= share <= 1.0 for share in reading.probabilities.values())
        for name, head in READ.items():
            assert getattr(reading, name) in (*HEADS[head], NONE)
        assert (reading.worn == NONE) == (reading.worn_colour == NONE)
        assert (reading.seat == NONE) == (reading.seat_colour == NONE)
        assert (reading.kind == NONE) == (reading.colour == NONE) == (reading.pattern == NONE)


def test_targets_are_the_words_of_a_picture() -> None:
    look = Look("red", "white", "spotted", 3, "pink", 2)
    picture = Picture(Figure("owl", look), None, Figure("box", look), "moon")
    assert words_of(picture) == {
        "scene": "moon",
        "subject.kind": "owl",
        "subject.primary": "red",
        "subject.secondary": "white",
        "subject.pattern": "spotted",
        "subject.marking": "3",
        "subject.accent": "pink",
        "subject.build": "2",
        "worn.kind": "none",
        "seat.kind": "box",
        "seat.primary": "red",
        "seat.secondary": "white",
        "seat.pattern": "spotted",
        "seat.marking": "3",
        "seat.build": "2",
    }
    (row,) = targets([picture]).tolist()
    for head, index in zip(HEADS, row, strict=True):
        expected = words_of(picture).get(head)
        assert (index == ABSENT) if expected is None else (HEADS[head][index] == expected)
    assert identity_heads("seat")[0] == "seat.kind"
    assert "seat.accent" not in HEADS


def test_accuracy_asks_only_where_an_attribute_applies(evaluator: Evaluator) -> None:
    hat = Picture(None, Figure("hat", Look("red", "white", "plain", 0, "pink", 1)), None, "snow")
    assert set(attribute_accuracy([hat], pixels_of(hat), evaluator)) == {"scene", "worn"}
    assert set(absence_accuracy([hat], pixels_of(hat), evaluator)) == {"kind", "seat"}


def test_unknown_words_are_one_word(evaluator: Evaluator) -> None:
    a, b, cat = evaluator.text_embedding(
        ["a photo of a gnu", "A photo of a zorp!", "a photo of a cat"]
    )
    assert torch.equal(a, b)
    assert not torch.allclose(a, cat, atol=1e-2)


def test_a_vocabulary_pads_and_cuts() -> None:
    vocabulary = Vocabulary.of(["a red cat", "a cat"])
    assert vocabulary.words == ("a", "cat", "red")
    assert len(vocabulary) == 5
    assert vocabulary.encode(["A cat, red.", "dog"]).tolist() == [[2, 3, 4], [1, 0, 0]]
    assert vocabulary.encode([""]).tolist() == [[1]]
    assert vocabulary.encode(["cat " * 500]).shape[1] < 100


def test_the_shipped_evaluator_knows_the_whole_grammar(evaluator: Evaluator) -> None:
    lot = random.Random(11)
    known = evaluator.vocabulary
    for _ in range(2000):
        assert 1 not in known.encode([caption(draw_picture(lot), lot)])[0]


# Refusals.


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 32, 32),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(1, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
    ids=["float", "single", "channels last", "large"],
)
def test_other_pixels_are_refused(evaluator: Evaluator, pixels: torch.Tensor) -> None:
    with pytest.raises(WrongShape, match=r"must be torch\.uint8 of shape"):
        evaluator.read(pixels)
    with pytest.raises(WrongShape, match=r"must be torch\.uint8 of shape"):
        evaluator.image_embedding(pixels)


def test_unpaired_arguments_are_refused(evaluator: Evaluator, judged: Corpus) -> None:
    with pytest.raises(WrongShape, match="2 pictures stand against 3 pictures"):
        evaluator.image_similarity(judged.pixels[:2], judged.pixels[:3])
    with pytest.raises(WrongShape, match="3 pictures stand against 2 captions"):
        evaluator.text_similarity(judged.pixels[:3], ["a cat", "a dog"])
    with pytest.raises(WrongShape, match="2 pictures were asked for and 3 are given"):
        attribute_accuracy(judged.pictures[:2], judged.pixels[:3], evaluator)
    with pytest.raises(InvalidArgument, match="must be a list"):
        evaluator.text_embedding("a cat")
    with pytest.raises(InvalidArgument, match="at least one text"):
        evaluator.text_embedding([])
    with pytest.raises(InvalidArgument, match="at least one"):
        evaluator.read(judged.pixels[:0])
    with pytest.raises(InvalidArgument, match="'subject', 'worn' or 'seat'"):
        evaluator.identity_similarity(judged.pixels[:1], judged.pixels[:1], "hat")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--train"):
        Evaluator.load(tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(SHIPPED.read_bytes()[:1000])
    with pytest.raises(DataLoss, match="does not hold an evaluator"):
        Evaluator.load(torn)


# Training and storing.


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    corpus = Corpus.draw(16, 1)
    whole = train_evaluator(corpus, BRIEF, tmp_path / "whole.pt")

    def killed(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_evaluator(corpus, BRIEF, tmp_path / "broken.pt", killed)
    steps: list[int] = []
    resumed = train_evaluator(
        corpus, BRIEF, tmp_path / "broken.pt", lambda step, loss: steps.append(step)
    )
    assert steps == [3, 4]
    for (name, one), other in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    with pytest.raises(FailedPrecondition, match="another recipe"):
        train_evaluator(corpus, replace(BRIEF, batch=4), tmp_path / "broken.pt")


def test_stored_and_loaded_it_says_the_same(
    evaluator: Evaluator, judged: Corpus, tmp_path: Path
) -> None:
    again_file, third_file = tmp_path / "again.safetensors", tmp_path / "third.safetensors"
    evaluator.save(again_file)
    again = Evaluator.load(again_file)
    assert again.read(judged.pixels[:20]) == evaluator.read(judged.pixels[:20])
    again.save(third_file)
    assert again_file.read_bytes() == third_file.read_bytes() == SHIPPED.read_bytes()


def test_the_shipped_file_is_small() -> None:
    assert SHIPPED.stat().st_size <= 2_000_000


def test_roughened_pictures_stay_in_range_and_near() -> None:
    samples = to_sample(Corpus.draw(32, 2).pixels)
    rough = roughened(samples, torch.Generator().manual_seed(1))
    assert rough.shape == samples.shape
    assert float(rough.abs().max()) <= 1.0
    assert torch.equal(rough, roughened(samples, torch.Generator().manual_seed(1)))
    error = (rough - samples).abs().mean()
    assert 0.02 < float(error) < 0.4


def test_the_command_prints_the_table_and_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator_module.main(["--judge", "30"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in READ)
    assert "no worn" in printed
    weights, state = tmp_path / "new.safetensors", tmp_path / "state.pt"
    small = ["--pictures", "16", "--steps", "2", "--judge", "5"]
    evaluator_module.main(["--train", "--weights", str(weights), "--state", str(state), *small])
    assert Evaluator.load(weights).vocabulary.words == Evaluator.load().vocabulary.words
    assert "5 held-out" in capsys.readouterr().out
