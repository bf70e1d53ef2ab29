"""The training loop on tiny bases: laws of the method, exact resume, best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from perfuse import method
from perfuse.adapter import Adapter
from perfuse.adapter.limits import MAX_TRAINING_TEXT
from perfuse.attach import (
    BaseModel,
    PlannedConcept,
    attach,
    encode_tokens,
    initial_value_outputs,
    locked_key_outputs,
    plan,
)
from perfuse.errors import FailedPrecondition, InvalidArgument, TrainingDiverged
from perfuse.method import KeyLock, Reach, Remainder
from perfuse_trainer.learning.conditioning import condition
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.summary import curve_text
from perfuse_trainer.learning.templates import TEMPLATES
from perfuse_trainer.learning.training import train
from perfuse_trainer.pictures.images import TrainingPicture

BASES = ("tiny_sd15", "tiny_sd21", "tiny_sdxl")


def pictures(count: int = 3, side: int = 32) -> tuple[TrainingPicture, ...]:
    lot = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=lot, dtype=torch.uint8)
    return tuple(
        TrainingPicture(name=f"{index}.png", pixels=one, mask=None)
        for index, one in enumerate(pixels)
    )


def settings(**changes: Any) -> TrainingSettings:
    chosen: dict[str, Any] = {"steps": 6, "batch": 3, "validate_every": 2, "validation_rows": 4}
    return TrainingSettings(super_category="cat", **(chosen | changes))


def loop(base: BaseModel, **changes: Any) -> TrainingLoop:
    return TrainingLoop(base, PictureLatents.encode(base, pictures()), settings(**changes))


def finish(run: TrainingLoop, base: BaseModel) -> TrainingLoop:
    with attach(base.unet):
        while not run.finished:
            run.step()
    return run


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("lock", [KeyLock.LOCAL, KeyLock.TRAINED_K])
def test_a_run_stopped_after_any_step_ends_with_the_same_bytes(
    name: str, lock: KeyLock, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(name)
    undisturbed = finish(loop(base, key_lock=lock), base)
    expected = undisturbed.adapter().to_bytes()
    last = undisturbed.adapter(best=False, dtype="float32").to_bytes()
    # After any of them with one base; what the others add is how much there is to keep.
    for stop in (1, 3, 5) if name == BASES[0] else (3,):
        first = loop(base, key_lock=lock)
        with attach(base.unet):
            for _ in range(stop):
                first.step()
        resumed = loop(base, key_lock=lock)
        resumed.load(load(save(first.state())))
        finish(resumed, base)
        assert resumed.adapter().to_bytes() == expected
        assert resumed.adapter(best=False, dtype="float32").to_bytes() == last
        assert resumed.curve == undisturbed.curve


@pytest.mark.parametrize("name", BASES)
def test_training_sees_what_rendering_will_see(name: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(name)
    run = finish(loop(base, render_bias=0.75, render_temperature=0.1), base)
    adapter = run.adapter(best=False, settle=False, dtype="float32")
    learning = Learning(base, settings(), torch.zeros(1, dtype=torch.long))
    learning.load(run.learning.state())
    with torch.no_grad():
        conditioning = condition(
            base, [(learning, torch.arange(len(TEMPLATES)))], follow=False
        ).conditioning
    for index, template in enumerate(TEMPLATES):
        # Training has the paper's form: at every position, leaving nothing where no gate is open.
        planned = plan(
            base,
            template.format("<concept>"),
            [PlannedConcept("concept", adapter)],
            remainder=Remainder.NOTHING,
            reach=Reach.EVERYWHERE,
        ).conditioning
        for ours, theirs in zip(
            (*conditioning.keys, *conditioning.values),
            (*planned.keys, *planned.values),
            strict=True,
        ):
            assert torch.allclose(ours[index], theirs[0], rtol=1e-4, atol=1e-5)


def test_it_starts_at_the_super_category(tiny_sd15: BaseModel) -> None:
    templates = torch.tensor([0, 3, 3])
    learning = Learning(tiny_sd15, settings(), templates)
    assert torch.equal(learning.target_input, learning.super_category_encoding)
    expected = initial_value_outputs(tiny_sd15, learning.super_category_encoding)
    assert torch.equal(learning.value_output.detach(), expected)
    # The first prompt then is the super-category's own, so the concept's encoding is e_super's.
    planned = plan(tiny_sd15, TEMPLATES[0].format("cat"))
    encoded = condition(tiny_sd15, [(learning, torch.tensor([0]))], follow=False)
    assert torch.allclose(encoded.conditioning.encodings[0], planned.encodings, atol=1e-6)


def test_gradients_reach_what_is_trained_and_nothing_else(tiny_sd15: BaseModel) -> None:
    run = loop(tiny_sd15, key_lock=KeyLock.LOCAL)
    before = {name: value.clone() for name, value in tiny_sd15.unet.state_dict().items()}
    start = run.learning.state()
    finish(run, tiny_sd15)
    end = run.learning.state()
    assert torch.equal(start["key_output"], end["key_output"])
    assert torch.equal(start["super_category_encoding"], end["super_category_encoding"])
    for trained in ("value_output", "embedding.text_encoder", "target_input"):
        assert not torch.equal(start[trained], end[trained]), trained
    assert all(parameter.grad is None for parameter in tiny_sd15.unet.parameters())
    after = tiny_sd15.unet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_trained_k_trains_the_keys_and_stores_them(tiny_sd15: BaseModel) -> None:
    run = finish(loop(tiny_sd15, key_lock=KeyLock.TRAINED_K), tiny_sd15)
    adapter = run.adapter(best=False)
    assert adapter.key_output is not None
    locked = locked_key_outputs(tiny_sd15, adapter.super_category_encoding.float())
    assert not torch.allclose(adapter.key_output.float(), locked, atol=1e-3)


def test_the_target_input_is_the_running_mean_of_the_concepts_encoding(
    tiny_sd15: BaseModel,
) -> None:
    run = loop(tiny_sd15, decay=0.9)
    expected = run.learning.target_input
    with attach(tiny_sd15.unet):
        for _ in range(6):
            learning, templates = run.learning, run.batch().templates.tolist()
            prompts = [learning.prompts[index] for index in templates]
            encoding = encode_tokens(tiny_sd15, prompts, [learning.supplied] * len(prompts))
            at_slots = encoding.at_slots("concept").detach()
            expected = method.running_mean(expected, at_slots.mean(0), 0.9)
            run.step()
            assert torch.allclose(learning.target_input, expected, rtol=1e-5, atol=1e-6)


def test_the_best_validation_is_kept(tiny_sd15: BaseModel) -> None:
    # A rate that makes things worse: the start is the best checkpoint.
    run = finish(loop(tiny_sd15, output_rate=5.0, embedding_rate=5.0), tiny_sd15)
    best = min(run.curve, key=lambda point: point[1])
    assert run.adapter().metadata.training["steps"] == best[0]
    assert best[0] < run.steps_done
    assert run.adapter().digest != run.adapter(best=False).digest


def test_the_adapter_carries_its_validation_curve(tiny_sd15: BaseModel) -> None:
    run = finish(loop(tiny_sd15), tiny_sd15)
    stored = Adapter.from_bytes(run.adapter().to_bytes()).metadata.training["validation_curve"]
    points = json.loads(str(stored))
    assert [step for step, _ in points] == [0, 2, 4, 6]
    assert [value for _, value in points] == pytest.approx([v for _, v in run.curve], rel=1e-3)


@pytest.mark.parametrize("count", [1, 2, 17, 19, 500, 4001])
def test_a_curve_always_fits_and_keeps_its_first_best_and_last_points(count: int) -> None:
    curve = [(25 * index, 0.2 + 1e-7 * (index - 0.7 * count) ** 2) for index in range(count)]
    text = curve_text(curve)
    steps = [step for step, _ in json.loads(text)]
    assert len(text) <= MAX_TRAINING_TEXT
    best = min(curve, key=lambda point: point[1])[0]
    assert {0, best, curve[-1][0]} <= set(steps)
    assert steps == sorted(set(steps))
    # A run of the default length, 400 steps validated every 25, keeps every point.
    assert len(steps) == count or (count > 17 and len(steps) > 13)


def test_patience_ends_a_run_early(tiny_sd15: BaseModel) -> None:
    run = finish(
        loop(tiny_sd15, steps=100, output_rate=5.0, embedding_rate=5.0, patience=2), tiny_sd15
    )
    assert run.steps_done < 100
    steps, values = zip(*run.curve, strict=True)
    assert steps[-1] - steps[values.index(min(values))] == 4


def test_a_weight_of_zero_hides_a_region(tiny_sd15: BaseModel) -> None:
    """A weight of one everywhere is no weight; half a picture weighed teaches something else."""
    latents = PictureLatents.encode(tiny_sd15, pictures())
    weight = torch.ones(3, 1, *latents.mean.shape[-2:])
    everywhere = TrainingLoop(tiny_sd15, latents, settings(), weight)
    nowhere_told = TrainingLoop(tiny_sd15, latents, settings())
    assert (
        finish(everywhere, tiny_sd15).adapter().digest
        == finish(nowhere_told, tiny_sd15).adapter().digest
    )
    weight[..., : weight.shape[-1] // 2] = 0.0
    half = TrainingLoop(tiny_sd15, latents, settings(flip=0.0), weight)
    assert finish(half, tiny_sd15).adapter().digest != everywhere.adapter().digest


def test_divergence_is_said_not_stored(tiny_sd15: BaseModel) -> None:
    run = loop(tiny_sd15)
    with attach(tiny_sd15.unet):
        run.step()
        with torch.no_grad():
            run.learning.value_output.fill_(float("inf"))
        before = run.state()
        with pytest.raises(TrainingDiverged, match=r"step 2 .* output_rate"):
            run.step()
    after = run.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_finished_run_takes_no_step(tiny_sd15: BaseModel) -> None:
    run = finish(loop(tiny_sd15, steps=1), tiny_sd15)
    with pytest.raises(FailedPrecondition, match="finished after 1 step"):
        run.step()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps is 0; it must be from 1"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"key_lock": KeyLock.GLOBAL}, "way of rendering"),
        ({"patience": 0}, "patience is 0"),
        ({"flip": 1.5}, "flip is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        settings(**change)


def test_an_empty_super_category_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="super-category is empty"):
        TrainingSettings(super_category=" ")


def test_a_finished_run_called_again_ends_at_once(tiny_sd15: BaseModel, tmp_path: Any) -> None:
    steps: list[int] = []
    note: Callable[[Any], None] = lambda done: steps.append(done.step)  # noqa: E731
    checkpoint = tmp_path / "run.safetensors"
    first = train(tiny_sd15, pictures(), settings(), checkpoint=checkpoint, on_progress=note)
    again = train(tiny_sd15, pictures(), settings(), checkpoint=checkpoint, on_progress=note)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert first.digest == again.digest


def test_a_checkpoint_of_another_run_is_refused(tiny_sd15: BaseModel, tmp_path: Any) -> None:
    checkpoint = tmp_path / "run.safetensors"
    train(tiny_sd15, pictures(), settings(steps=2), checkpoint=checkpoint)
    with pytest.raises(FailedPrecondition, match="another base model, other pictures"):
        train(tiny_sd15, pictures(2), settings(steps=2), checkpoint=checkpoint)
    checkpoint.write_bytes(b"\x00" * 40)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        train(tiny_sd15, pictures(), settings(steps=2), checkpoint=checkpoint)
