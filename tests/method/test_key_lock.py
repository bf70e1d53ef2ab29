"""The key locks and the map of positions for GLOBAL."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument, WrongShape
from perfuse.method import KeyLock, key_positions, locked_key_output

from .cases import fast
from .reference import super_category_prompt


def test_the_locks_are_their_own_names() -> None:
    assert [str(lock) for lock in KeyLock] == ["LOCAL", "GLOBAL", "TRAINED_K"]
    assert KeyLock("GLOBAL") is KeyLock.GLOBAL


@given(
    words=st.lists(st.sampled_from(["a", "in", "<x>", "<y>", "<z>"]), max_size=12),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    padding=st.integers(0, 12),
)
@fast
def test_every_position_meets_its_own_word(
    words: list[str], sizes: tuple[int, int, int], padding: int
) -> None:
    """Against the prompt spelled out: repeated and adjacent placeholders, padding, overflow."""
    sub_tokens = dict(zip(("<x>", "<y>", "<z>"), sizes, strict=True))
    words = ["<start>", *words, "<end>", *["<pad>"] * padding]
    length = len(words)
    spelled = super_category_prompt(words, sub_tokens)
    placeholders = [(p, sub_tokens[word]) for p, word in enumerate(words) if word in sub_tokens]
    last = {origin: index for index, (origin, _) in enumerate(spelled)}
    expected = [min(last[position], length - 1) for position in range(length)]
    assert key_positions(length, placeholders).tolist() == expected
    assert key_positions(length, placeholders[::-1]).tolist() == expected


def test_pinned_positions() -> None:
    # <start> a <x> <y> and <x> <end> <pad>; <x> has 2 sub-tokens, <y> has 3
    result = key_positions(12, [(2, 2), (3, 3), (5, 2)])
    assert result.tolist() == [0, 1, 3, 6, 7, 9, 10, 11, 11, 11, 11, 11]
    assert result.dtype == torch.int64
    assert key_positions(4, []).tolist() == [0, 1, 2, 3]
    assert key_positions(0, []).tolist() == []


@pytest.mark.parametrize(
    ("length", "placeholders", "message"),
    [
        (5, [(5, 1)], "position 5"),
        (5, [(-1, 1)], "position -1"),
        (5, [(2, 0)], "0 sub-tokens"),
        (5, [(2, 1), (2, 2)], "each position once"),
        (-1, [], "length is -1"),
    ],
)
def test_positions_that_make_no_sense(
    length: int, placeholders: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        key_positions(length, placeholders)


def test_a_locked_key_of_another_base_model_is_refused() -> None:
    with pytest.raises(WrongShape, match=r"super_category_encoding has shape \[5\].*axis d is 5"):
        locked_key_output(torch.zeros(3, 4), torch.zeros(5))


def test_a_locked_key_of_halves_is_kept_in_float32() -> None:
    torch.manual_seed(0)
    weight, encodings = torch.randn(3, 4).half(), torch.randn(2, 4).half()
    result = locked_key_output(weight, encodings)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, encodings.float() @ weight.float().mT)
