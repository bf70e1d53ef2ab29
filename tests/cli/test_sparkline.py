"""Curves in one line: laws on any numbers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from perfuse.cli.sparkline import LEVELS, sparkline

numbers = st.lists(st.floats(-1e6, 1e6), max_size=200)


@given(numbers, st.integers(1, 60))
def test_it_is_as_wide_as_there_are_values_and_room(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set(LEVELS)


@given(numbers, st.integers(1, 60), st.floats(-100, 100))
def test_what_is_not_finite_is_left_out(values: list[float], width: int, at: float) -> None:
    spoilt = [math.nan, *values, math.inf]
    assert sparkline(spoilt, width) == sparkline(values, width)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=60, unique=True))
def test_order_is_kept_and_both_ends_are_reached(values: list[int]) -> None:
    line = sparkline([float(value) for value in values], 60)
    levels = [LEVELS.index(each) for each in line]
    ranked = sorted(zip(values, levels, strict=True))
    assert [level for _, level in ranked] == sorted(levels)
    assert {LEVELS[0], LEVELS[-1]} <= set(line)


def test_a_curve_that_falls() -> None:
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0], 8) == LEVELS[::-1]
    assert sparkline([4, 4, 0, 0], 2) == "█▁"
    assert sparkline([3, 3, 3], 8) == "▄▄▄"
    assert sparkline([], 8) == ""
