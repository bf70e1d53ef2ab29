"""Every input that fuzzing kept, once more: what was found stays found."""

from __future__ import annotations

import pytest

import fuzz

_MOST_BYTES = 300_000


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_the_kept_corpus_breaks_nothing(name: str) -> None:
    target = fuzz.target(name)
    inputs = {**target.seeds(), **fuzz.kept(name)}
    assert len(fuzz.kept(name)) > 5
    for data in inputs.values():
        target.one(data)


def test_it_is_small() -> None:
    sizes = [path.stat().st_size for path in fuzz.CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < _MOST_BYTES
