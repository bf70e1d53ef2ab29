"""The fidelity harness: what it asks, what it measures with, and that it does nothing twice."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bench.fidelity import bootstrap, companions, plots, results
from bench.fidelity.__main__ import measure
from bench.fidelity.bootstrap import Bootstrap, ahead, interval, verdict
from bench.fidelity.claims import CLAIMS
from bench.fidelity.curriculum import (
    BLENDS,
    TAUGHT,
    blend_prompts,
    figure_of,
    prompts,
    shown,
    shown_scenes,
)
from bench.fidelity.document import write
from bench.fidelity.form import Form
from bench.fidelity.judge import judge
from bench.fidelity.lab import Lab
from bench.fidelity.lessons import Lesson, learn_ours, pixels_of
from bench.fidelity.lora import Lora, lora_plan
from bench.fidelity.rendering import Rendering
from perfuse.attach import BaseModel, attach, denoise
from perfuse_toybox.concepts import SHADES, TOM
from perfuse_toybox.drawing import paint
from perfuse_toybox.evaluator import Evaluator
from perfuse_toybox.world import Figure
from perfuse_trainer.learning.draws import Draws
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.pictures.images import TrainingPicture


@pytest.fixture(scope="module")
def home(toybox_base: BaseModel, tiny_form: Form, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every claim was measured once."""
    folder = tmp_path_factory.mktemp("fidelity")
    _measure(_lab(tiny_form, toybox_base, folder), None)
    return folder


def test_every_claim_is_measured_drawn_and_told(home: Path) -> None:
    found = json.loads((home / "fidelity.json").read_text())["tiny"]
    assert found["complete"]
    document = (home / "docs" / "fidelity.md").read_text()
    assert "not measured yet" not in document
    for claim in CLAIMS:
        record = found["claims"][claim.NAME]
        assert record["verdicts"]
        for one in record["verdicts"].values():
            assert one["verdict"] in ("holds", "does not hold", "undecided")
        assert (home / "docs" / "fidelity" / f"{claim.NAME}.png").stat().st_size > 1000
        assert f"({claim.NUMBER}) {claim.TITLE}" in document


def test_what_is_finished_is_not_made_again(
    toybox_base: BaseModel, tiny_form: Form, home: Path
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (home / "work").rglob("*.safetensors")}
    before = json.loads((home / "fidelity.json").read_text())["tiny"]["claims"]["spanning"]
    _measure(_lab(tiny_form, toybox_base, home), [1])
    after = json.loads((home / "fidelity.json").read_text())["tiny"]["claims"]["spanning"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert set((home / "work").rglob("*.safetensors")) == set(kept)
    for record in (before, after):
        record.pop("measured")
    assert after == before


def test_the_same_bytes_from_nothing(
    toybox_base: BaseModel, tiny_form: Form, home: Path, tmp_path: Path
) -> None:
    lab = _lab(tiny_form, toybox_base, tmp_path)
    lab.arrays([(lab.lesson(), Rendering(bias=tiny_form.biases[0]))])
    again = sorted((tmp_path / "work").rglob("*.safetensors"))
    assert len(again) == 3 * tiny_form.concepts  # Of each a lesson, pictures, what was read.
    for path in again:
        first = home / "work" / path.relative_to(tmp_path / "work")
        assert path.read_bytes() == first.read_bytes()


def test_a_killed_lesson_goes_on_to_the_same_bytes(toybox_base: BaseModel, tmp_path: Path) -> None:
    jobs = [(concept, Lesson(steps=3, batch=2, pictures=1)) for concept in (TOM, SHADES)]

    def killed(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    undisturbed = learn_ours(toybox_base, jobs, tmp_path / "never", checkpoint_every=100)
    with pytest.raises(KeyboardInterrupt):
        learn_ours(toybox_base, jobs, tmp_path / "pack", killed, checkpoint_every=1)
    steps: list[int] = []
    resumed = learn_ours(toybox_base, jobs, tmp_path / "pack", steps.append, checkpoint_every=1)
    assert steps == [3]
    for (before, notes), (after, also) in zip(undisturbed, resumed, strict=True):
        assert notes == also
        assert {name: bytes(file.numpy()) for name, file in before.items()} == {
            name: bytes(file.numpy()) for name, file in after.items()
        }


def test_what_was_not_measured_is_told_so(tmp_path: Path) -> None:
    document = write({}, tmp_path).read_text()
    assert document.count("**not measured yet**") == len(CLAIMS)
    assert results.told({}, "spanning") is None


def test_the_full_form_is_told_before_the_quick_one() -> None:
    everything = {
        "quick": {"claims": {"locks": {"n": 1}, "peers": {"n": 2}}},
        "full": {"claims": {"locks": {"n": 3}}},
    }
    assert results.told(everything, "locks") == ("full", {"n": 3})
    assert results.told(everything, "peers") == ("quick", {"n": 2})


def test_the_interval_has_the_width_that_clusters_give() -> None:
    lot = np.random.default_rng(0)
    clusters = lot.normal(size=(60, 1)) + np.zeros((60, 12))
    found = interval(Bootstrap(60, 12).means(clusters))
    assert found["value"] == pytest.approx(clusters.mean(), abs=1e-4)
    half = (found["high"] - found["low"]) / 2  # type: ignore[operator]
    # As if there were 60 numbers, and not 720.
    assert half == pytest.approx(1.96 * clusters.std() / np.sqrt(60), rel=0.12)


def test_pictures_of_one_concept_alone_widen_it_less() -> None:
    lot = np.random.default_rng(1)
    pictures = lot.normal(size=(1, 400))
    found = interval(Bootstrap(1, 400).means(pictures))
    half = (found["high"] - found["low"]) / 2  # type: ignore[operator]
    assert half == pytest.approx(1.96 * pictures.std() / np.sqrt(400), rel=0.12)


def test_what_does_not_apply_is_left_out_and_differences_are_of_pairs() -> None:
    values = np.random.default_rng(2).normal(size=(2, 5, 4))
    values[1] = values[0] + 0.25
    values[:, 2, 1] = np.nan
    means = Bootstrap(5, 4).means(values)
    assert means[0, 0] == pytest.approx(np.nanmean(values[0]))
    assert interval(means[1] - means[0]) == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert interval(Bootstrap(5, 4).means(np.full((5, 4), np.nan)))["value"] is None


def test_fronts_are_compared_where_both_reach() -> None:
    likeness = np.array([[0.2], [0.6], [0.8]])
    text = 1 - likeness
    assert ahead((likeness, text + 0.1), (likeness[::-1], text[::-1])) == pytest.approx(0.1)
    assert ahead((likeness, text), (np.array([[0.5]]), np.array([[0.2]]))) == pytest.approx(0.3)
    assert np.isnan(ahead((likeness, text), (likeness + 0.7, text))[0])
    # A knob turned past its best, where both fall, does not count against a front.
    past = np.concatenate([[[0.3]], likeness[1:]]), np.concatenate([[[0.1]], text[1:]])
    good = likeness[1:], text[1:]
    assert ahead(past, good) == pytest.approx(0.0)
    low = np.array([[0.4]]), np.array([[0.3]])
    assert ahead(past, low) == pytest.approx(0.1)
    assert verdict({"value": 1.0, "low": 0.5, "high": 2.0}) == "holds"
    assert verdict({"value": 1.0, "low": -0.5, "high": 2.0}) == "undecided"
    assert verdict({"value": -1.0, "low": -2.0, "high": -0.5}) == "does not hold"


@pytest.mark.parametrize("concept", TAUGHT, ids=lambda concept: concept.name)
def test_prompts_are_apart_from_what_is_shown(concept) -> None:  # type: ignore[no-untyped-def]
    assert concept.figure.look.held_out
    asked = prompts(concept, 12)
    assert len({one.prompt for one in asked}) == 12
    assert {one.picture.scene for one in asked}.isdisjoint(shown_scenes(concept))
    assert {one.scene for one in shown(concept, 5)} == set(shown_scenes(concept))
    for one in asked:
        assert f"<{concept.name}>" in one.prompt
        assert concept.super_category in one.caption
        assert getattr(one.picture, figure_of(concept)) == concept.figure


def test_blends_have_a_figure_for_each_concept() -> None:
    for blend in BLENDS:
        assert len({figure_of(concept) for concept in blend}) == len(blend)
        for one in blend_prompts(blend, 6):
            assert set(one.figures) == {concept.name for concept in blend}


def test_true_pictures_are_judged_right_and_swapped_ones_found_out() -> None:
    asked = blend_prompts((TOM, SHADES), 2)
    truth = torch.stack([torch.from_numpy(paint(one.picture)).permute(2, 0, 1) for one in asked])
    examples = {concept.name: pixels_of(concept, 2) for concept in (TOM, SHADES)}
    evaluator = Evaluator.load()
    judged = judge(evaluator, asked, truth, examples)
    assert min(judged["likeness"]) > 0.97  # type: ignore[type-var, operator]
    assert judged["scene"] == judged["present"] == judged["own/primary"] == [1.0, 1.0]
    assert judged["swapped"] == [0.0, 0.0]
    assert judged["others"] == [None, None]
    swapped = []
    for one in asked:
        cat = Figure("cat", replace(TOM.figure.look, primary=SHADES.figure.look.primary))
        picture = replace(one.picture, subject=cat)
        swapped.append(torch.from_numpy(paint(picture)).permute(2, 0, 1))
    wrong = judge(evaluator, asked, torch.stack(swapped), examples)
    assert wrong["swapped"] == [1.0, 1.0]
    assert wrong["likeness/tom"][0] < judged["likeness/tom"][0]  # type: ignore[operator]
    assert judged["variety"] == [None, None]
    seeds = torch.stack([truth[0], truth[0], truth[1], swapped[1]])
    same, _, one, other = judge(evaluator, asked, seeds, examples)["variety"]
    assert same == pytest.approx(0, abs=1e-4)
    assert one == other > 0.01  # type: ignore[operator]


def test_a_companion_that_is_left_alone_is_told_from_one_that_took_the_look() -> None:
    evaluator, asked = Evaluator.load(), prompts(TOM, 12)[1:4]
    own, other = companions.painted(asked, 1)
    left = companions.compare(evaluator, asked, own, other)
    assert min(left["alike"]) > 0.9  # type: ignore[type-var, operator]
    assert left["same/kind"] == [1.0] * 3
    assert left["taken"] == [0.0] * 3
    stained = []
    for one in asked:
        dressed = {
            figure: replace(getattr(one.picture, figure), look=TOM.figure.look)
            for figure in companions.companions_of(one)
        }
        picture = replace(one.picture, **dressed)
        stained.append(torch.from_numpy(paint(picture)).permute(2, 0, 1))
    took = companions.compare(evaluator, asked, torch.stack(stained), other)
    assert took["taken"] == [1.0] * 3
    assert took["unchanged"] == [0.0] * 3
    bare = companions.compare(evaluator, prompts(TOM, 1), own[:1], other[:1])
    assert set(bare) == set(companions.MEASURES)
    assert all(values == [None] for values in bare.values())


@torch.no_grad()
def _predictions(base: BaseModel, lora: Lora, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What peft's own denoiser says, and ours with the LoRA's plan."""
    planned = lora_plan(base, caption, [lora.state()], 1.0)
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([300])
    theirs = lora.denoiser(noisy, at, planned.encodings[None], return_dict=False)[0]
    with attach(base.unet):
        ours = denoise(base, noisy, at, planned.conditioning)
    return theirs, ours


def test_a_lora_in_a_plan_is_pefts_own(toybox_base: BaseModel) -> None:
    settings = Lesson(steps=2, batch=2, pictures=1).settings(TOM)
    pictures = [TrainingPicture("0.png", pixels_of(TOM, 1)[0], None)]
    draws = Draws(toybox_base, PictureLatents.encode(toybox_base, pictures), settings)
    lora = Lora(
        toybox_base, Learning(toybox_base, settings, draws.step(0).templates), rate=0.05, seed=0
    )
    for step in range(2):
        lora.step(draws.step(step))
    theirs, ours = _predictions(toybox_base, lora, "a photo of a cat")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for name, weight in lora.denoiser.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    _, plain = _predictions(toybox_base, lora, "a photo of a cat")
    assert (plain - ours).abs().max() > 1e-3


def _lab(form: Form, base: BaseModel, folder: Path) -> Lab:
    return Lab(form, base, folder / "work", Console(file=io.StringIO()))


def _measure(lab: Lab, numbers: list[int] | None) -> None:
    """With few draws, and no layout of plots that asks every label for its size."""
    folder = lab.store.root.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 60)
        patch.setattr(plots, "LAYOUT", None)
        measure(lab, folder / "fidelity.json", folder / "docs", numbers, 1)
