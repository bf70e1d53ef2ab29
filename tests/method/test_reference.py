"""The method against an independent float64 implementation of the same equations."""

import numpy as np
import pytest
import torch
from hypothesis import given

from perfuse.method import (
    Covariance,
    blend,
    coordinates,
    edit,
    gate,
    key_positions,
    locked_key_output,
    similarities,
    similarity,
)

from . import reference
from .cases import Case, cases, fast, make, relative_error

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
ROUNDED = {torch.float64: np.float64, torch.float32: np.float32}

every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float64", "float32"])


def expected(case: Case) -> np.ndarray:
    return np.array(
        [
            [
                reference.edited(
                    e,
                    case.weight,
                    case.target_inputs,
                    case.target_outputs,
                    case.inverse_covariance,
                    case.biases,
                    case.temperatures,
                )
                for e in row
            ]
            for row in case.encodings
        ]
    )


def blended(case: Case, dtype: torch.dtype) -> torch.Tensor:
    t = case.tensors(dtype)
    e, inputs, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    gates = gate(similarities(e, inputs, inverse), t["biases"], t["temperatures"])
    return blend(
        e @ t["weight"].mT,
        inputs @ t["weight"].mT,
        coordinates(e, inputs, inverse),
        gates,
        t["target_outputs"],
    )


def edited(case: Case, dtype: torch.dtype) -> torch.Tensor:
    t = case.tensors(dtype)
    e, i = t["encodings"], t["target_inputs"][0]
    s = similarity(e, i, t["inverse_covariance"])
    sigma = gate(s, float(case.biases[0]), float(case.temperatures[0]))
    return edit(e @ t["weight"].mT, t["weight"] @ i, s, sigma, t["target_outputs"][0])


@every_dtype
@given(case=cases())
@fast
def test_blend_of_one_to_eight_concepts(case: Case, dtype: torch.dtype) -> None:
    case = case.rounded(ROUNDED[dtype])
    result = blended(case, dtype)
    assert result.dtype == dtype
    assert relative_error(result, expected(case)) <= TOLERANCE[dtype]


@every_dtype
@given(case=cases(max_concepts=1))
@fast
def test_edit_of_one_concept(case: Case, dtype: torch.dtype) -> None:
    case = case.rounded(ROUNDED[dtype])
    result = edited(case, dtype)
    assert result.dtype == dtype
    assert relative_error(result, expected(case)) <= TOLERANCE[dtype]


@every_dtype
@given(case=cases())
@fast
def test_similarities(case: Case, dtype: torch.dtype) -> None:
    case = case.rounded(ROUNDED[dtype])
    t = case.tensors(dtype)
    result = similarities(t["encodings"], t["target_inputs"], t["inverse_covariance"])
    known = [
        [
            [reference.similarity(e, i, case.inverse_covariance) for i in case.target_inputs]
            for e in row
        ]
        for row in case.encodings
    ]
    assert relative_error(result, np.array(known)) <= TOLERANCE[dtype]


@every_dtype
def test_at_the_width_and_condition_of_a_clip_text_encoder(dtype: torch.dtype) -> None:
    case = make(0, batch=1, positions=6, width=768, outputs=320, cosine=0.35, condition=3.9e3)
    case = case.rounded(ROUNDED[dtype])
    assert relative_error(blended(case, dtype), expected(case)) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_types_lose_only_their_own_rounding(dtype: torch.dtype, bound: float) -> None:
    case = make(5)
    t = case.tensors(dtype)
    halves = Case(**{name: tensor.double().numpy() for name, tensor in t.items()})
    result = blended(case, dtype)
    assert result.dtype == dtype
    # The reference reads the matrix as the half holds it, which is still positive definite here.
    assert relative_error(result, expected(halves)) <= bound


def test_from_captions_to_edited_values() -> None:
    """Our covariance and inverse against numpy's, then the edit on top of them."""
    case = make(11, width=12)
    rng = np.random.default_rng(1)
    captions = rng.standard_normal((40, 9, 12)) @ rng.standard_normal((12, 12))
    moment = reference.second_moment(captions)
    ours = Covariance(torch.from_numpy(moment), 360).inverse(ridge=1e-3)
    theirs = np.linalg.inv(moment + 1e-3 * np.trace(moment) / 12 * np.eye(12))
    assert relative_error(ours, theirs) <= 1e-12
    known = expected(Case(**{**vars(case), "inverse_covariance": theirs}))
    result = blended(Case(**{**vars(case), "inverse_covariance": ours.numpy()}), torch.float64)
    assert relative_error(result, known) <= 1e-10


def test_keys_under_each_lock() -> None:
    """A concept's word thrice, twice side by side; its super-category has two sub-tokens."""
    rng = np.random.default_rng(3)
    case = make(3, batch=1, positions=9, concepts=1)
    t = case.tensors()
    weight, e_super = t["weight"], torch.from_numpy(rng.standard_normal(24))
    known_output = case.weight @ e_super.numpy()

    output = locked_key_output(weight, e_super)
    assert relative_error(output, known_output) <= 1e-12

    local = edited(Case(**{**vars(case), "target_outputs": output[None].numpy()}), torch.float64)
    known = expected(Case(**{**vars(case), "target_outputs": known_output[None]}))
    assert relative_error(local, known) <= 1e-10

    words = ["<start>", "a", "<x>", "<x>", "and", "<x>", "<end>", "<end>", "<end>"]
    spelled = reference.super_category_prompt(words, {"<x>": 2})[:9]
    encodings = rng.standard_normal((9, 24))
    keys = torch.from_numpy(encodings) @ weight.mT
    result = keys[key_positions(9, [(2, 2), (3, 2), (5, 2)])]
    for position, row in enumerate(result):
        own = [index for index, (origin, _) in enumerate(spelled) if origin == position]
        index = own[-1] if own else 8
        assert relative_error(row, case.weight @ encodings[index]) <= 1e-12
