"""Options that hold more than one value: read, or refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from perfuse.cli.options import read_numbers, read_pairs, read_size
from perfuse.cli.render_options import concept_settings, drawn_seeds, name_of, settled
from perfuse.cli.sweep import biases, only_concept
from perfuse.cli.training import masks_of
from perfuse.client import ConceptSettings, Picture
from perfuse.errors import NotFound


def test_pairs() -> None:
    assert read_pairs("--label", None) == {}
    assert read_pairs("--label", ["team=a", "note=x=y", "empty="]) == {
        "team": "a",
        "note": "x=y",
        "empty": "",
    }


@pytest.mark.parametrize("said", [["team"], ["=a"], ["a=1", "a=2"]])
def test_pairs_that_are_none(said: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="--label"):
        read_pairs("--label", said)


def test_numbers_of_concepts() -> None:
    assert read_numbers("--bias", ["tom=0.5", "<shades@prod>=1"]) == {
        "tom": 0.5,
        "shades@prod": 1.0,
    }
    with pytest.raises(typer.BadParameter, match="a number"):
        read_numbers("--bias", ["tom=much"])


@pytest.mark.parametrize(
    ("said", "size"),
    [(None, (None, None)), ("512", (512, 512)), ("512x768", (512, 768)), ("8×4", (8, 4))],
)
def test_sizes(said: str | None, size: tuple[int | None, int | None]) -> None:
    assert read_size(said) == size


@pytest.mark.parametrize("said", ["", "x", "5x", "-5x5", "5x5x5", "1e3"])
def test_sizes_that_are_none(said: str) -> None:
    with pytest.raises(typer.BadParameter, match="WIDTHxHEIGHT"):
        read_size(said)


def test_gates_of_concepts_meet_by_placeholder() -> None:
    assert concept_settings({"tom": 0.5}, {"tom": 0.1, "shades": 0.2}) == {
        "tom": ConceptSettings(bias=0.5, temperature=0.1),
        "shades": ConceptSettings(temperature=0.2),
    }


def test_files_are_called_after_the_prompt() -> None:
    assert name_of("A photo of <tom@7>, in the snow!") == "a-photo-of-tom-7-in-the-snow"
    assert name_of("Ein Bär: ../../etc") == "ein-bär-etc"
    assert name_of("...") == "picture"
    assert name_of("words " * 100) == "-".join(["words"] * 8)
    assert name_of("w" * 100) == "w" * 48
    assert name_of("whatever", "mine") == "mine"
    with pytest.raises(typer.BadParameter, match="--out"):
        name_of("whatever", "../mine")


def test_seeds_or_a_count() -> None:
    assert settled(None, 4) == ((), 4)
    assert settled([1, 2], None) == ((1, 2), None)
    assert settled([1, 2], 2) == ((1, 2), None)
    with pytest.raises(typer.BadParameter, match="give one"):
        settled([1, 2], 3)
    drawn = drawn_seeds(5)
    assert len(set(drawn)) == 5
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_biases_reach_both_ends_evenly() -> None:
    assert biases(0.3, 0.9, 7) == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    with pytest.raises(typer.BadParameter, match="upwards"):
        biases(0.9, 0.3, 7)
    with pytest.raises(typer.BadParameter, match="--count"):
        biases(0.3, 0.9, 1)


def test_masks_are_found_by_name(tmp_path: Path) -> None:
    pictures = [Picture("a.jpg", b""), Picture("b.png", b"")]
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"mask")
    assert masks_of(pictures, tmp_path) == {
        "a.jpg": tmp_path / "a.png",
        "b.png": tmp_path / "b.png",
    }
    (tmp_path / "a.png").unlink()
    with pytest.raises(NotFound, match=r"a\.jpg has no mask"):
        masks_of(pictures, tmp_path)


def test_the_only_concept_of_a_prompt_needs_no_option() -> None:
    assert only_concept("a photo of <tom@7>") == "tom@7"
    assert only_concept(r"<tom> \<3 and <tom>") == "tom"
    for prompt in ("a photo", "<tom> and <shades>"):
        with pytest.raises(typer.BadParameter, match="--concept"):
            only_concept(prompt)
