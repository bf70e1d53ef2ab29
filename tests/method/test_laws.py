"""What the paper promises of an edit, stated as laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from perfuse.method import (
    activity,
    blend,
    change,
    coordinates,
    dual_inputs,
    edit,
    filled,
    gate,
    inner_product,
    locked_key_output,
    running_mean,
    similarities,
    similarity,
)

from . import reference
from .cases import Case, cases, fast, make, relative_error

BIAS, TEMPERATURE = 0.7, 0.15


def edited(t: dict[str, Tensor], encodings: Tensor, concept: int = 0) -> Tensor:
    i = t["target_inputs"][concept]
    s = similarity(encodings, i, t["inverse_covariance"])
    return edit(
        encodings @ t["weight"].mT,
        t["weight"] @ i,
        s,
        gate(s, BIAS, TEMPERATURE),
        t["target_outputs"][concept],
    )


def blended(t: dict[str, Tensor], encodings: Tensor, order: list[int]) -> Tensor:
    inputs, inverse = t["target_inputs"][order], t["inverse_covariance"]
    s = similarities(encodings, inputs, inverse)
    return blend(
        encodings @ t["weight"].mT,
        inputs @ t["weight"].mT,
        coordinates(encodings, inputs, inverse),
        gate(s, t["biases"][order], t["temperatures"][order]),
        t["target_outputs"][order],
    )


def close(value: Tensor, expected: Tensor, bound: float = 1e-11) -> None:
    assert relative_error(value, expected.numpy()) <= bound


@given(case=cases())
@fast
def test_an_orthogonal_encoding_keeps_the_base_output_but_for_the_gates_tail(case: Case) -> None:
    t = case.tensors()
    e = t["encodings"]
    coefficients = coordinates(e, t["target_inputs"], t["inverse_covariance"])
    orthogonal = e - coefficients @ t["target_inputs"]
    for concept, output in enumerate(t["target_outputs"]):
        tail = torch.sigmoid(torch.tensor(-BIAS / TEMPERATURE, dtype=torch.float64))
        base = orthogonal @ t["weight"].mT
        close(edited(t, orthogonal, concept), base + tail * output, 1e-10)


@given(case=cases())
@fast
def test_at_the_target_input_the_output_is_gate_times_target_output(case: Case) -> None:
    t = case.tensors()
    for concept, output in enumerate(t["target_outputs"]):
        at_target = t["target_inputs"][concept : concept + 1]
        share = torch.sigmoid(torch.tensor((1 - BIAS) / TEMPERATURE, dtype=torch.float64))
        close(edited(t, at_target, concept), share * output[None], 1e-10)


def test_a_locked_key_at_the_super_category_is_the_base_key() -> None:
    t = make(1).tensors()
    e_super = t["encodings"][0, 0]
    base = e_super @ t["weight"].mT
    close(locked_key_output(t["weight"], e_super), base)
    # An edit that starts at i* = e_super and whose gate is wide open therefore changes nothing.
    s = similarity(e_super[None], e_super, t["inverse_covariance"])
    locked = locked_key_output(t["weight"], e_super)
    close(edit(base[None], t["weight"] @ e_super, s, torch.ones_like(s), locked), base[None])


def filled_blend(t: dict[str, Tensor], encodings: Tensor, gates: Tensor, supers: Tensor) -> Tensor:
    """With the super-categories' rows [J, d] where a gate does not put its concept back."""
    weight, inputs = t["weight"], t["target_inputs"]
    operands = filled(inputs @ weight.mT, t["target_outputs"], supers @ weight.mT)
    found = coordinates(encodings, inputs, t["inverse_covariance"])
    return blend(
        encodings @ weight.mT,
        operands.projected_target_inputs,
        found,
        gates,
        operands.target_outputs,
    )


@given(case=cases())
@fast
def test_what_a_gate_does_not_put_back_is_the_super_category(case: Case) -> None:
    t = case.tensors()
    e, inputs, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    supers = inputs + torch.linspace(0.5, 2, inputs.numel(), dtype=e.dtype).reshape(inputs.shape)
    found = coordinates(e, inputs, inverse)
    closed = filled_blend(t, e, torch.zeros_like(found), supers)
    # Closed gates: the prompt with each concept's share replaced by its super-category's.
    close(closed, (e - found @ (inputs - supers)) @ t["weight"].mT)
    # Gates as wide open as the concept is there: nothing remains, and both forms are the same.
    plain = blend(e @ t["weight"].mT, inputs @ t["weight"].mT, found, found, t["target_outputs"])
    close(filled_blend(t, e, found, supers), plain)


@given(case=cases())
@fast
def test_a_filled_key_lock_does_not_depend_on_the_gate(case: Case) -> None:
    t = case.tensors()
    e = t["encodings"]
    supers = t["target_inputs"].flip(-1) + 1
    t["target_outputs"] = supers @ t["weight"].mT
    found = coordinates(e, t["target_inputs"], t["inverse_covariance"])
    shut, ajar = torch.zeros_like(found), torch.full_like(found, 0.4)
    close(filled_blend(t, e, ajar, supers), filled_blend(t, e, shut, supers))
    # At the target input itself the key is the super-category's, exactly.
    at = t["target_inputs"][:1]
    one = coordinates(at, t["target_inputs"], t["inverse_covariance"])
    close(filled_blend(t, at, torch.zeros_like(one), supers), t["target_outputs"][:1])


@given(case=cases(max_concepts=1))
@fast
def test_a_blend_of_one_concept_is_the_edit(case: Case) -> None:
    t = case.tensors()
    t["biases"].fill_(BIAS)
    t["temperatures"].fill_(TEMPERATURE)
    close(blended(t, t["encodings"], [0]), edited(t, t["encodings"]), 1e-12)


@given(case=cases())
@fast
def test_the_order_of_concepts_does_not_matter(case: Case) -> None:
    t = case.tensors()
    count = len(t["target_inputs"])
    order = np.random.default_rng(count).permutation(count).tolist()
    given_order = blended(t, t["encodings"], list(range(count)))
    close(blended(t, t["encodings"], order), given_order)


@given(case=cases())
@fast
def test_what_concepts_change_is_one_sum_for_all_layers(case: Case) -> None:
    t = case.tensors()
    e, inputs, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    found = activity(e, inputs, inverse, duals=dual_inputs(inputs, inverse))
    close(found.similarities, similarities(e, inputs, inverse))
    close(found.coordinates, coordinates(e, inputs, inverse))
    gates = gate(found.similarities, t["biases"], t["temperatures"])
    layers = [t["weight"], 2 * t["weight"].flip(0)]
    outputs = [t["target_outputs"], -t["target_outputs"]]
    changed = change(
        torch.cat([inputs @ weight.mT for weight in layers], dim=-1),
        found.coordinates,
        gates,
        torch.cat(outputs, dim=-1),
    )
    parts = changed.split([len(weight) for weight in layers], dim=-1)
    for weight, output, part in zip(layers, outputs, parts, strict=True):
        projected = e @ weight.mT
        whole = blend(projected, inputs @ weight.mT, found.coordinates, gates, output)
        close(projected + part, whole)


@given(case=cases())
@fast
def test_any_scaling_of_the_covariance_cancels(case: Case) -> None:
    t = case.tensors()
    order = list(range(len(t["target_inputs"])))
    scaled = {**t, "inverse_covariance": 12345.678 * t["inverse_covariance"]}
    close(blended(scaled, t["encodings"], order), blended(t, t["encodings"], order))
    close(edited(scaled, t["encodings"]), edited(t, t["encodings"]))


@given(case=cases())
@fast
def test_with_the_similarity_as_gate_it_is_rome(case: Case) -> None:
    t = case.tensors()
    i, o, e = t["target_inputs"][0], t["target_outputs"][0], t["encodings"]
    s = similarity(e, i, t["inverse_covariance"])
    weight = reference.rome_weight(
        case.weight, case.target_inputs[0], case.target_outputs[0], case.inverse_covariance
    )
    result = edit(e @ t["weight"].mT, t["weight"] @ i, s, s, o)
    assert relative_error(result, case.encodings @ weight.T) <= 1e-10


@given(case=cases())
@fast
def test_what_is_left_after_the_projection_is_orthogonal_to_every_target_input(case: Case) -> None:
    t = case.tensors()
    e, inputs, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    rest = e - coordinates(e, inputs, inverse) @ inputs
    assert similarities(rest, inputs, inverse).abs().max() <= 1e-10
    # Projecting once more finds nothing.
    assert coordinates(rest, inputs, inverse).abs().max() <= 1e-9


def test_coordinates_of_a_mixture_are_its_coefficients() -> None:
    t = make(2, concepts=4, cosine=0.8).tensors()
    coefficients = torch.tensor([[1.0, 0, 0, 0], [0.3, -2, 0, 0.5]], dtype=torch.float64)
    mixture = coefficients @ t["target_inputs"]
    close(coordinates(mixture, t["target_inputs"], t["inverse_covariance"]), coefficients)


def test_no_concept_returns_the_projection_itself() -> None:
    t = make(4).tensors()
    none, inverse = t["target_inputs"][:0], t["inverse_covariance"]
    projected = t["encodings"] @ t["weight"].mT
    c = coordinates(t["encodings"], none, inverse)
    s = similarities(t["encodings"], none, inverse)
    assert c.shape == s.shape == (2, 7, 0)
    empty = projected.new_zeros(0, projected.shape[-1])
    assert blend(projected, empty, c, gate(s, BIAS, TEMPERATURE), empty) is projected


def test_rows_may_carry_their_own_concepts() -> None:
    """A batch whose rows have a concept each equals the rows alone, for edit and for blend."""
    t = make(6, batch=3, concepts=3).tensors()
    e, inputs, inverse, weight = (
        t[name] for name in ("encodings", "target_inputs", "inverse_covariance", "weight")
    )
    s = similarity(e, inputs[:, None], inverse)
    sigma = gate(s, BIAS, TEMPERATURE)
    together = edit(e @ weight.mT, inputs @ weight.mT, s, sigma, t["target_outputs"])
    alone = torch.stack([edited(t, e[row], concept=row) for row in range(3)])
    close(together, alone, 1e-13)

    pairs = torch.tensor([[0, 1], [1, 2], [2, 0]])
    own = inputs[pairs]
    together = blend(
        e @ weight.mT,
        own @ weight.mT,
        coordinates(e, own, inverse),
        gate(similarities(e, own, inverse), t["biases"][pairs][:, None], TEMPERATURE),
        t["target_outputs"][pairs],
    )
    t["temperatures"].fill_(TEMPERATURE)
    alone = torch.stack([blended(t, e[row], pair) for row, pair in enumerate(pairs.tolist())])
    close(together, alone, 1e-13)


def test_repeated_and_adjacent_words_of_a_concept_are_edited_alike() -> None:
    t = make(8).tensors()
    word = t["encodings"][0, :1]
    prompt = torch.cat([word, word, t["encodings"][0, 3:5], word])
    result = blended(t, prompt, [0, 1, 2])
    assert torch.equal(result[0], result[1])
    close(result[4:], result[:1])


def test_pinned_gates() -> None:
    s = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    assert gate(s, 0.75, 0.10).tolist() == pytest.approx(
        [0.00055, 0.0067, 0.0759, 0.5, 0.9241], rel=1e-2
    )
    per_concept = gate(s[:, None], torch.tensor([0.75]), torch.tensor(0.10))
    close(per_concept[:, 0], gate(s, 0.75, 0.10), 1e-6)
    assert gate(s.half(), 0.75, 0.10).dtype == torch.float32


def test_inner_product_is_a_metric() -> None:
    t = make(9).tensors()
    e, i, inverse = t["encodings"], t["target_inputs"][0], t["inverse_covariance"]
    close(inner_product(e, i, inverse), inner_product(i, e, inverse))
    assert (inner_product(e, e, inverse) > 0).all()
    pinned = inner_product(
        torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    )
    assert pinned.item() == 5.0


def test_running_mean_moves_by_one_percent_and_stops_gradients() -> None:
    current, encoding = torch.zeros(3), torch.full((3,), 100.0, requires_grad=True)
    step = running_mean(current, encoding)
    assert not step.requires_grad
    assert step.tolist() == pytest.approx([1.0] * 3, rel=1e-6)
    assert torch.equal(current, torch.zeros(3))
    for _ in range(2000):
        current = running_mean(current, encoding)
    assert current.tolist() == pytest.approx([100.0] * 3, rel=1e-5)
    assert running_mean(current.half(), encoding.half()).dtype == torch.float32
