"""Trials of open questions: their own way is the product's, and the others are what they say."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.fidelity import bootstrap
from bench.fidelity.companions import PLACES
from bench.fidelity.curriculum import prompts
from bench.fidelity.form import Form
from bench.fidelity.lab import Lab
from bench.fidelity.lessons import Lesson, latents_of, loop_of
from bench.fidelity.rendering import Rendering
from bench.fidelity.trials import trial
from bench.fidelity.trials.__main__ import BLENDED, table, write
from bench.fidelity.trials.attention import figure_mask, shares
from bench.fidelity.trials.covariances import accumulated
from bench.fidelity.trials.learning import State, learn, state_of
from bench.fidelity.trials.planning import planned, strength_of
from bench.fidelity.trials.questions import QUESTIONS, Question
from bench.fidelity.trials.targets import LATER, at_target, words_of
from bench.fidelity.trials.trial import Trial
from bench.fidelity.trials.way import Learnt, Way
from perfuse import method
from perfuse.adapter import Adapter
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    Prompt,
    attach,
    encode_tokens,
    initial_value_outputs,
    plan,
    split_outputs,
    tokenise,
)
from perfuse.method import KeyLock, Remainder
from perfuse_toybox.concepts import TOM
from perfuse_trainer.learning.draws import Draws
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.templates import TEMPLATES

LESSON = Lesson(steps=2, batch=2, pictures=2, rate=0.1)
ASKED = prompts(TOM, 3)[2]


@pytest.fixture(scope="module")
def adapter(toybox_base: BaseModel) -> Adapter:
    """What the product learns in two steps."""
    loop = loop_of(toybox_base, TOM, LESSON)
    with attach(toybox_base.unet):
        while not loop.finished:
            loop.step()
    return loop.adapter(best=False, dtype="float32")


def test_the_trials_own_way_of_learning_is_the_products(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    product = state_of(adapter)
    learned = learn(toybox_base, TOM, LESSON, Learnt())
    ours = at_target(toybox_base, TOM, LESSON, learned, Way().target)
    assert ours.keys() == product.keys()
    for name, value in ours.items():
        # The first steps of AdamW are as long whatever the gradient, and sway with its rounding.
        torch.testing.assert_close(value, product[name], rtol=0, atol=2e-3, msg=name)


def test_a_carried_target_input_is_as_similar_to_earlier_places_as_to_later_ones(
    toybox_base: BaseModel,
) -> None:
    state = learn(toybox_base, TOM, LESSON, Learnt())
    carried = at_target(toybox_base, TOM, LESSON, state, "CARRIED")
    assert at_target(toybox_base, TOM, LESSON, state, "RUNNING_MEAN") == state
    words, found = [{TOM.name: words_of(state)}], []
    for some in (TEMPLATES, LATER):
        tokens = [
            tokenise(toybox_base, Prompt.parse(text.format(f"<{TOM.name}>"), [TOM.name]))
            for text in some
        ]
        encodings = encode_tokens(toybox_base, tokens, words * len(tokens)).at_slots(TOM.name)
        similarity = method.similarities(
            encodings, carried["target_input"][None], toybox_base.inverse_covariance
        )
        found.append(similarity.mean().item())
    assert sum(found) / 2 == pytest.approx(1, abs=1e-4)
    assert found[0] != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("lock", ["LOCAL", "GLOBAL"])
@pytest.mark.parametrize("remainder", list(Remainder))
def test_the_trials_own_way_of_rendering_is_the_products(
    toybox_base: BaseModel, adapter: Adapter, lock: str, remainder: Remainder
) -> None:
    product = plan(
        toybox_base,
        ASKED.prompt,
        [_concept(adapter)],
        key_lock=KeyLock(lock),
        remainder=remainder,
    )
    way = Way(key_lock=lock, remainder=remainder.value)
    ours = planned(toybox_base, ASKED, state_of(adapter), way, 0.5)
    for one, other in zip(_rows(ours), _rows(product), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_an_edit_at_some_places_leaves_the_others_alone(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    state = state_of(adapter)
    whole = planned(toybox_base, ASKED, state, Way(places="ALL"), 0.5)
    end = whole.chunks[0].end_of_text
    left = {
        "NAMED": [0, 4, end + 1],
        "NOT_START": [0],
        "WORDS": [0, end + 1],
        "CONCEPT": [0, 4, end, end + 1],
    }
    for places, positions in left.items():
        some = planned(toybox_base, ASKED, state, Way(places=places), 0.5)
        for one, other in zip(_rows(some), _rows(whole), strict=True):
            assert torch.equal(one[5], other[5])
            for position in positions:
                assert not torch.equal(one[position], other[position])


def test_a_gate_without_tail_is_shut_at_nothing_and_open_at_the_concept(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    state, (tokens,) = (
        state_of(adapter),
        plan(toybox_base, ASKED.prompt, [_concept(adapter)]).chunks,
    )
    encodings = torch.stack(
        [-state["target_input"], 0 * state["target_input"], state["target_input"]]
    )
    gates = [
        strength_of(toybox_base, encodings, state, way, 0.5, tokens).gate[:, 0].tolist()
        for way in (Way(places="ALL", tail=False), Way(places="ALL"))
    ]
    assert gates[0] == pytest.approx([0, 0, 1], abs=1e-6)
    assert gates[1][1] == pytest.approx(1 - gates[1][2], abs=1e-6) != 0


def test_in_the_super_categorys_prompt_a_shut_gate_leaves_the_base_alone(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    way = Way(word="OPEN", places="CONCEPT", context="SUPER")
    shut = planned(toybox_base, ASKED, state_of(adapter), way, 50.0)
    half = planned(toybox_base, ASKED, state_of(adapter), way, 1.0)
    plain, slot = plan(toybox_base, ASKED.caption), 5
    gained = adapter.value_output - initial_value_outputs(
        toybox_base, adapter.super_category_encoding
    )
    for one, other in zip(_rows(shut), _rows(plain), strict=True):
        assert torch.equal(one, other)
    parts = split_outputs(toybox_base, gained / 2)
    for value, own, part in zip(half.values, plain.values, parts, strict=True):
        torch.testing.assert_close(value[slot], own[slot] + part, rtol=1e-5, atol=1e-5)


def test_outputs_by_position_meet_the_product_where_all_are_alike(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    state = state_of(adapter)
    spread = state["value_output"].repeat(toybox_base.positions, 1)
    ours = planned(toybox_base, ASKED, state | {"value_output": spread}, Way(), 0.5)
    for one, other in zip(
        _rows(ours), _rows(planned(toybox_base, ASKED, state, Way(), 0.5)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_gradients_through_the_target_input_and_outputs_by_position_are_learned(
    toybox_base: BaseModel,
) -> None:
    lesson = replace(LESSON, steps=1)
    plain = learn(toybox_base, TOM, lesson, Learnt())
    whole = learn(toybox_base, TOM, lesson, Learnt(gradient="WHOLE"))
    word = "embedding.text_encoder"
    assert not torch.equal(whole[word], plain[word])
    assert torch.equal(whole["target_input"], plain["target_input"])
    each = learn(toybox_base, TOM, lesson, Learnt(outputs="POSITION"))["value_output"]
    assert each.shape == (toybox_base.positions, plain["value_output"].shape[0])
    assert not torch.equal(each[0], each[5])


def test_a_lesson_is_as_it_is_asked_for(toybox_base: BaseModel) -> None:
    plain, still, narrow, longer = (
        learn(toybox_base, TOM, LESSON, learnt)
        for learnt in (
            Learnt(),
            Learnt(embedding_rate=0.0),
            Learnt(places="CONCEPT"),
            Learnt(steps=3, output_rate=0.02),
        )
    )
    word, start = "embedding.text_encoder", learn_nothing(toybox_base)
    assert torch.equal(still[word], start[word])
    assert not torch.equal(plain[word], start[word])
    assert not torch.equal(narrow["value_output"], plain["value_output"])
    # AdamW moves no number by more than its rate in a step, but for weight decay.
    gone = (longer["value_output"] - start["value_output"]).abs().max().item()
    assert 0.02 < gone < 3 * 0.021


def test_copies_of_a_word_take_the_last_places_and_its_share_of_attention(
    toybox_base: BaseModel, adapter: Adapter
) -> None:
    state, latents = state_of(adapter), torch.zeros(1, 16, 8, 8)
    once, thrice = (planned(toybox_base, ASKED, state, Way(copies=n), 0.5) for n in (1, 3))
    for one, other in zip(_rows(thrice), _rows(once), strict=True):
        assert torch.equal(one[:-2], other[:-2])
        assert torch.equal(one[-2:], other[5].expand(2, -1))
    own, copies = torch.eye(toybox_base.positions)[5], torch.zeros(toybox_base.positions)
    copies[[5, -2, -1]] = 1

    def share(made: ConditioningPlan, there: torch.Tensor) -> float:
        layers = shares(toybox_base, made, latents, there)
        return sum(layer.mean().item() for layer in layers) / len(layers)

    assert share(thrice, copies) > 1.3 * share(once, own)
    assert share(once, torch.ones(toybox_base.positions)) == pytest.approx(1, abs=1e-5)


def test_a_figure_is_masked_where_it_is_seen() -> None:
    mask = figure_mask(ASKED.picture, ASKED.figures[TOM.name])[0, 0]
    assert 0.05 < mask.mean() < 0.6
    assert mask[0].sum() == 0


def test_positions_are_counted_as_said(toybox_base: BaseModel) -> None:
    counts = {name: accumulated(toybox_base, name, 6).count for name in ("ALL", "WORDS", "NO_END")}
    assert counts["ALL"] == 6 * toybox_base.positions
    assert counts["NO_END"] == counts["WORDS"] - 6


def test_a_question_is_asked_once_and_told(
    toybox_base: BaseModel, tiny_form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 60)
    monkeypatch.setattr(trial, "BIASES", (0.5,))
    monkeypatch.setattr(trial, "CAPTIONS", 100)
    form = replace(tiny_form, concepts=1)
    lab = Lab(form, toybox_base, tmp_path / "work", Console(file=io.StringIO()))
    ways = {"product": Way(), "other": Way(learnt=Learnt(counted="ALL"), key_lock="GLOBAL")}
    question = Question("small", "Is it small?", ways)
    record = Trial(lab).ask(question)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert Trial(lab).ask(question) == record
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    write(tmp_path / "trials.json", lab, record, question.name)
    told = table(record)
    assert "Is it small?" in told
    assert "| other | 0.5 |" in told


def test_readings_are_of_what_was_learned(
    toybox_base: BaseModel, tiny_form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "CAPTIONS", 100)
    form = replace(tiny_form, concepts=1)
    lab = Lab(form, toybox_base, tmp_path / "work", Console(file=io.StringIO()))
    found = Trial(lab).readings()
    for companies in found["attention"].values():
        for places in companies.values():
            whole = {name: share for name, share in places.items() if name in PLACES}
            assert sum(whole.values()) == pytest.approx(1, abs=1e-3)
            # The base's words look at their own figures, and so do locked keys.
            assert places["within the figure"] > places["elsewhere"]
    assert found["attention"]["base alone"] != found["attention"]["LOCAL"]
    (concept,) = lab.concepts
    losses = found["fits"][concept.name]
    assert all(0 < loss < 2 for loss in losses.values())
    assert losses["TRAINED_K"] != losses["TRAINED_K, its keys locked"]
    assert found["similarity"]["WORDS"]["concept"]["mean"] > 0.5


def test_ways_of_learning_are_blended_as_the_product_does_it(
    toybox_base: BaseModel, tiny_form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 60)
    monkeypatch.setattr(trial, "BIASES", (0.4,))
    form = replace(tiny_form, concepts=3, blends=1, blend_scenes=1, seeds=(1,))
    lab = Lab(form, toybox_base, tmp_path / "work", Console(file=io.StringIO()))
    ways = {
        "product": Way(),
        "still": Way(learnt=Learnt(embedding_rate=0.0)),
        "elsewhere": Way(places="ALL"),
    }
    record = Trial(lab).blend(Question("small", "Is it small?", ways))
    assert list(record["ways"]) == ["product", "still"]
    (blend,) = lab.blends
    claimed = lab.blended(blend, (lab.lesson(), Rendering(bias=0.4, dtype="float32")))
    for measured in ("likeness", "text"):
        (found,) = record["ways"]["product"][measured]
        assert found["value"] == pytest.approx(claimed[measured][0], abs=0.01)
    told = table(record, *BLENDED)
    assert "| still | 0.4 |" in told
    assert "present" in told


def test_the_first_way_of_every_question_is_the_products() -> None:
    for question in QUESTIONS:
        first, *others = question.ways.values()
        assert first == Way(key_lock=first.key_lock)
        assert first not in others


def learn_nothing(base: BaseModel) -> State:
    """Where every lesson begins."""
    settings = LESSON.settings(TOM)
    draws = Draws(base, latents_of(base, TOM, LESSON), settings)
    return Learning(base, settings, draws.step(0).templates).state()


def _rows(made: ConditioningPlan) -> tuple[torch.Tensor, ...]:
    return (*made.keys, *made.values)


def _concept(adapter: Adapter) -> PlannedConcept:
    return PlannedConcept(TOM.name, adapter, 0.5, 0.15)
