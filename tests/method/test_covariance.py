"""The streamed second moment and its inverse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument, NotFinite, SingularCovariance, WrongShape
from perfuse.method import Covariance, CovarianceAccumulator

from .cases import fast, relative_error
from .reference import second_moment


def stream(seed: int, rows: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) + 0.5


def accumulated(chunks: list[torch.Tensor]) -> CovarianceAccumulator:
    accumulator = CovarianceAccumulator(chunks[0].shape[-1])
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator


@given(
    seed=st.integers(0, 2**31),
    width=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    edge=st.integers(0, 6),
)
@fast
def test_chunking_and_resuming(seed: int, width: int, cuts: list[int], edge: int) -> None:
    rows = stream(seed, 200, width)
    chunks = [chunk for chunk in rows.tensor_split(sorted(cuts)) if len(chunk)]
    whole = accumulated([rows]).finish()
    chunked = accumulated(chunks)
    assert chunked.count == whole.count == 200
    assert relative_error(chunked.finish().matrix, whole.matrix.numpy()) <= 1e-12
    assert relative_error(whole.matrix, second_moment(rows.numpy())) <= 1e-12

    edge = min(edge, len(chunks) - 1)
    interrupted = CovarianceAccumulator(width)
    for chunk in chunks[:edge]:
        interrupted.add(chunk)
    state = interrupted.state()
    interrupted.add(chunks[edge])  # work lost after the state was taken must not reach it
    resumed = CovarianceAccumulator.resume(state)
    for chunk in chunks[edge:]:
        resumed.add(chunk)
    assert resumed.count == 200
    assert torch.equal(resumed.finish().matrix, chunked.finish().matrix)


def test_leading_axes_and_half_types_are_summed_in_float64() -> None:
    halves = stream(1, 60, 4).half()
    flat, nested = CovarianceAccumulator(4), CovarianceAccumulator(4)
    flat.add(halves)
    nested.add(halves.reshape(3, 20, 4))
    assert torch.equal(flat.finish().matrix, nested.finish().matrix)
    assert flat.finish().matrix.dtype == torch.float64
    expected = second_moment(halves.double().numpy())
    assert relative_error(flat.finish().matrix, expected) <= 1e-14


@given(seed=st.integers(0, 2**31), width=st.integers(1, 30), ridge=st.floats(0, 1))
@fast
def test_the_inverse_inverts(seed: int, width: int, ridge: float) -> None:
    covariance = accumulated([stream(seed, 8 * width, width)]).finish()
    inverse = covariance.inverse(ridge)
    identity = torch.eye(width, dtype=torch.float64)
    ridged = covariance.matrix + ridge * covariance.matrix.trace() / width * identity
    assert torch.equal(inverse, inverse.mT)
    assert torch.linalg.eigvalsh(inverse)[0] > 0
    assert relative_error(inverse @ ridged, identity.numpy()) <= 1e-10
    assert covariance.rank() == width
    spectrum = np.linalg.eigvalsh(covariance.matrix.numpy())
    assert covariance.condition_number() == pytest.approx(spectrum[-1] / spectrum[0], rel=1e-8)


def test_a_relative_ridge_scales_with_the_covariance() -> None:
    covariance = accumulated([stream(3, 100, 5)]).finish()
    scaled = Covariance(1e6 * covariance.matrix, covariance.count)
    expected = covariance.inverse(1e-2).numpy() / 1e6
    assert relative_error(scaled.inverse(1e-2), expected) <= 1e-12


def test_directions_left_out_need_a_ridge() -> None:
    rows = stream(4, 100, 6)
    rows[:, 4:] = rows[:, :2]  # a text encoder that leaves two directions out
    covariance = accumulated([rows]).finish()
    assert covariance.rank() == 4
    assert covariance.condition_number() == math.inf
    with pytest.raises(SingularCovariance, match=r"4 of 6 directions \(2 missing\).*larger ridge"):
        covariance.inverse(0)
    almost = torch.diag(torch.tensor([1.0, 1e-17], dtype=torch.float64))
    with pytest.raises(SingularCovariance, match="span 1 of 2"):
        Covariance(almost, 100).inverse(0)
    with pytest.raises(SingularCovariance, match="ridge 1e-18"):
        covariance.inverse(1e-18)
    for ridge in (1e-12, 1e-6, 1.0):
        inverse = covariance.inverse(ridge)
        assert torch.isfinite(inverse).all()
        assert torch.linalg.eigvalsh(inverse)[0] > 0


def test_too_few_encodings_are_counted_whatever_the_ridge() -> None:
    covariance = accumulated([stream(5, 7, 10)]).finish()
    with pytest.raises(
        SingularCovariance, match=r"7 encodings span 7 of 10.*at least 14.*7 more.*captions"
    ):
        covariance.inverse(1e-2)


def test_an_accumulator_without_encodings_has_no_covariance() -> None:
    accumulator = CovarianceAccumulator(3)
    accumulator.add(torch.zeros(0, 3))
    assert accumulator.count == 0
    with pytest.raises(SingularCovariance, match="0 encodings of width 3"):
        accumulator.finish()
    accumulator.add(torch.zeros(9, 3))
    with pytest.raises(SingularCovariance, match="span 0 of 3"):
        accumulator.finish().inverse(1e-3)


def test_a_refused_chunk_changes_nothing() -> None:
    accumulator = accumulated([stream(6, 50, 3)])
    before = accumulator.state()
    bad = stream(7, 5, 3)
    bad[2, 1] = math.nan
    with pytest.raises(NotFinite, match=r"encodings holds 1 NaN.*of 15.*\[2, 1\]"):
        accumulator.add(bad)
    with pytest.raises(WrongShape, match="encodings has shape \\[5, 4\\]"):
        accumulator.add(torch.zeros(5, 4))
    with pytest.raises(InvalidArgument, match=r"int64.*\.float\(\)"):
        accumulator.add(torch.zeros(5, 3, dtype=torch.int64))
    assert accumulator.count == 50
    assert torch.equal(accumulator.state()["sum"], before["sum"])


@pytest.mark.parametrize("ridge", [-1e-9, math.nan, math.inf])
def test_a_ridge_is_a_finite_number_not_below_zero(ridge: float) -> None:
    with pytest.raises(InvalidArgument, match="ridge is"):
        accumulated([stream(8, 50, 3)]).finish().inverse(ridge)


@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        (torch.zeros(2, 3, dtype=torch.float64), WrongShape),
        (torch.zeros(3, dtype=torch.float64), WrongShape),
        (torch.eye(2), InvalidArgument),
        (torch.eye(2, dtype=torch.float64) * math.nan, NotFinite),
        (torch.tensor([[1.0, 0.5], [0.4, 1.0]], dtype=torch.float64), InvalidArgument),
    ],
    ids=["oblong", "vector", "float32", "nan", "skew"],
)
def test_what_is_not_a_covariance(matrix: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        Covariance(matrix, 100)
    with pytest.raises(error):
        CovarianceAccumulator.resume({"sum": matrix, "count": torch.tensor(100)})


def test_an_indefinite_matrix_is_not_inverted() -> None:
    matrix = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    with pytest.raises(SingularCovariance):
        Covariance(matrix, 100).inverse(1e-3)


def test_states_and_widths_that_make_no_sense() -> None:
    with pytest.raises(InvalidArgument, match=r"lacks \['count'\]"):
        CovarianceAccumulator.resume({"sum": torch.eye(2, dtype=torch.float64)})
    with pytest.raises(WrongShape, match="count has shape"):
        CovarianceAccumulator.resume(
            {"sum": torch.eye(2, dtype=torch.float64), "count": torch.zeros(2)}
        )
    with pytest.raises(InvalidArgument, match="count is -1"):
        Covariance(torch.eye(2, dtype=torch.float64), -1)
    with pytest.raises(InvalidArgument, match="width is 0"):
        CovarianceAccumulator(0)
