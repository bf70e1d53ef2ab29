"""Bad input to the equations is a typed error that names the value, the rule and the remedy."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import perfuse.method
from perfuse.errors import DependentConcepts, InvalidArgument, NotFinite, PerfuseError, WrongShape
from perfuse.method import (
    blend,
    coordinates,
    edit,
    gate,
    inner_product,
    running_mean,
    similarities,
    similarity,
)
from perfuse.method.blend import INDEPENDENCE_LIMIT

from .cases import fast, make, relative_error

Operands = dict[str, Tensor]

T = make(0).tensors()
E, INPUTS, INVERSE = T["encodings"], T["target_inputs"], T["inverse_covariance"]
PROJECTED, CONSTANTS, OUTPUTS = E @ T["weight"].mT, INPUTS @ T["weight"].mT, T["target_outputs"]
S = torch.rand(2, 7, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: similarity(E, INPUTS[0, :5], INVERSE), WrongShape, "target_input has shape"),
        (lambda: similarity(E, INPUTS[0], INVERSE[:5]), WrongShape, "inverse_covariance has"),
        (lambda: inner_product(E[0], INPUTS, INVERSE), WrongShape, r"a \[7\], b \[3\]"),
        (lambda: inner_product(E, INPUTS[0], INVERSE[0]), WrongShape, r"must be \[d, d\]"),
        (lambda: similarities(E, INPUTS[0], INVERSE), WrongShape, r"must be \[\.\.\., J, d\]"),
        (lambda: similarities(E.long(), INPUTS, INVERSE), InvalidArgument, "floating-point"),
        (lambda: coordinates(E, INPUTS, INVERSE, names=["x"]), InvalidArgument, "1 names.* 3"),
        (lambda: edit(PROJECTED, CONSTANTS[0, :2], S[..., 0], S[..., 0], OUTPUTS[0]),
         WrongShape, "projected_target_input has shape"),
        (lambda: edit(PROJECTED, CONSTANTS[0], S[:, :2, 0], S[..., 0], OUTPUTS[0]),
         WrongShape, "similarity has shape"),
        (lambda: edit(PROJECTED, CONSTANTS[0], S[..., 0], S[..., 0], OUTPUTS[:, :3]),
         WrongShape, "target_output has shape"),
        (lambda: edit(PROJECTED, CONSTANTS[0], S[..., 0], S[..., 0], OUTPUTS),
         WrongShape, "leading axes do not broadcast"),
        (lambda: blend(PROJECTED, CONSTANTS, S[..., :2], S, OUTPUTS),
         WrongShape, "coordinates has shape"),
        (lambda: blend(PROJECTED, CONSTANTS, S, S, OUTPUTS[:2]),
         WrongShape, "target_outputs has shape"),
        (lambda: gate(S, torch.zeros(2), 0.1), WrongShape, "bias has shape"),
        (lambda: gate(S[0, 0], torch.zeros(1, 3), 0.1), WrongShape, "bias has shape"),
        (lambda: gate(S, 0.7, 0.0), InvalidArgument, "temperature is 0"),
        (lambda: gate(S, 0.7, torch.tensor([0.1, -0.2, 0.1])), InvalidArgument, "is -0.2"),
        (lambda: gate(S, math.nan, 0.1), NotFinite, "bias is nan"),
        (lambda: gate(S, 0.7, math.inf), NotFinite, "temperature is inf"),
        (lambda: gate(S, torch.tensor([0.1, math.inf, 0.1]), 0.1), NotFinite, "bias holds 1"),
        (lambda: running_mean(E[0, 0], E[0, 0], 1.0), InvalidArgument, "decay is 1.0"),
        (lambda: running_mean(E[0, 0], E[0, 0, :3]), WrongShape, "encoding has shape"),
    ],
)  # fmt: skip
def test_shapes_and_parameters(
    call: Callable[[], Tensor], error: type[PerfuseError], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("function", [similarity, similarities, coordinates])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["target_input", "inverse_covariance"])
def test_numbers_that_are_none(function: Callable[..., Tensor], bad: float, where: str) -> None:
    inputs, inverse = INPUTS.clone(), INVERSE.clone()
    inputs = inputs[0] if function is similarity else inputs
    (inputs if where == "target_input" else inverse)[..., 1, None] = bad
    with pytest.raises(NotFinite, match=f"{where} holds"):
        function(E, inputs, inverse)


@pytest.mark.parametrize("function", [similarity, similarities, coordinates])
def test_a_target_input_without_length(function: Callable[..., Tensor]) -> None:
    inputs = INPUTS[0] if function is similarity else INPUTS
    with pytest.raises(InvalidArgument, match="must be positive"):
        function(E, 0 * inputs, INVERSE)
    with pytest.raises(InvalidArgument, match="positive definite"):
        function(E, inputs, -INVERSE)


def test_the_finiteness_check_can_be_left_out() -> None:
    bad = INPUTS[0] * math.nan
    assert similarity(E, bad, INVERSE, check_finite=False).isnan().all()


def close_pair(cosine: float) -> Tensor:
    """Five target inputs, of which 1 and 3 have the given cosine and the others are orthogonal."""
    t = make(1, concepts=5, cosine=0).tensors()
    inputs, inverse = t["target_inputs"], t["inverse_covariance"]
    unit = inputs / inner_product(inputs, inputs, inverse).sqrt()[:, None]
    unit[3] = cosine * unit[1] + math.sqrt(1 - cosine**2) * unit[3]
    return unit * torch.tensor([[1.0], [2.0], [1.0], [-0.5], [3.0]], dtype=torch.float64)


def test_near_dependent_concepts_are_named_with_their_cosine() -> None:
    inverse = make(1, concepts=5, cosine=0).tensors()["inverse_covariance"]
    message = r"concepts 1 \(tom\) and 3 \(tim\) .* cosine -0\.9950 .*0\.005; .* 0\.01: leave one"
    with pytest.raises(DependentConcepts, match=message):
        coordinates(E, close_pair(0.995), inverse, names=["a", "tom", "b", "tim", "c"])
    with pytest.raises(DependentConcepts, match="concepts 1 and 3 have"):
        coordinates(E, close_pair(1.0), inverse)


@given(excess=st.floats(1e-6, 0.5))
@fast
def test_the_limit_is_where_it_says(excess: float) -> None:
    inverse = make(1, concepts=5, cosine=0).tensors()["inverse_covariance"]
    edge = 1 - INDEPENDENCE_LIMIT
    inputs = close_pair(edge - excess)
    mixture = torch.eye(5, dtype=torch.float64) @ inputs
    assert relative_error(coordinates(mixture, inputs, inverse), torch.eye(5).numpy()) <= 1e-10
    with pytest.raises(DependentConcepts):
        coordinates(E, close_pair(min(edge + excess, 1.0)), inverse)


def test_dependence_of_three_without_a_close_pair() -> None:
    inputs = INPUTS.clone()
    inputs[2] = inputs[0] + inputs[1]
    with pytest.raises(DependentConcepts, match="all 3 concepts"):
        coordinates(E, inputs, INVERSE)


def test_one_bad_row_of_a_batch_is_found() -> None:
    inputs = torch.stack([INPUTS, INPUTS])
    inputs[1, 2] = inputs[1, 0]
    with pytest.raises(DependentConcepts, match="concepts 0 and 2"):
        coordinates(E, inputs, INVERSE)


def test_every_public_name_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    for name in perfuse.method.__all__:
        assert callable(getattr(perfuse.method, name)) or name == "PredictionType"
        assert f"`{name}" in page, name
