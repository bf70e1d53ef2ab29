"""Runs that share their passes: each gets what it would get alone, whatever happens to the others.

Equality with training alone is tested in float64, where rounding stays far below the bound.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import load_prepared
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from perfuse.attach import BaseModel, attach
from perfuse.errors import FailedPrecondition, InvalidArgument, TrainingDiverged, WrongShape
from perfuse.method import KeyLock
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.pictures.images import TrainingPicture

TOLERANCE = 1e-10
BASES = ("sd15", "sd21", "sdxl")


@pytest.fixture(scope="module", params=BASES)
def exact(request: pytest.FixtureRequest) -> Iterator[BaseModel]:
    directory: Path = request.getfixturevalue(f"tiny_{request.param}_dir")
    base = load_prepared(directory, dtype=torch.float64)
    with attach(base.unet):
        yield base


@pytest.fixture(scope="module")
def sd15(tiny_sd15_dir: Path) -> Iterator[BaseModel]:
    base = load_prepared(tiny_sd15_dir, dtype=torch.float64)
    with attach(base.unet):
        yield base


def pictures(count: int, side: int = 16) -> tuple[TrainingPicture, ...]:
    lot = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=lot, dtype=torch.uint8)
    return tuple(TrainingPicture(f"{place}.png", one, None) for place, one in enumerate(pixels))


@functools.cache
def encoded(base: BaseModel, count: int, size: int) -> PictureLatents:
    return PictureLatents.encode(base, pictures(count), size)


def run(
    base: BaseModel, *, count: int = 2, masked: bool = False, size: int = 16, **chosen: Any
) -> TrainingLoop:
    latents = encoded(base, count, size)
    weight = None
    if masked:
        shape = (count, 1, *latents.mean.shape[-2:])
        weight = torch.rand(shape, generator=torch.Generator().manual_seed(count))
    usual: dict[str, Any] = {"steps": 3, "batch": 2, "validate_every": 2, "validation_rows": 3}
    wanted = TrainingSettings(super_category=chosen.pop("noun", "cat"), **(usual | chosen))
    return TrainingLoop(base, latents, wanted, weight)


VARIED: tuple[dict[str, Any], ...] = (
    {"key_lock": KeyLock.LOCAL, "seed": 1},
    {"key_lock": KeyLock.TRAINED_K, "seed": 2, "batch": 3, "masked": True, "noun": "bear"},
    {"key_lock": KeyLock.LOCAL, "seed": 3, "bias": 0.6, "temperature": 0.2, "placeholder": "tom"},
)


def stepped(base: BaseModel, loops: list[TrainingLoop], steps: int) -> list[TrainingLoop]:
    for _ in range(steps):
        for result in Pack(base).step(loops):
            assert not isinstance(result, Exception), result
    return loops


def assert_close(one: TrainingLoop, other: TrainingLoop) -> None:
    ours, theirs = one.state(), other.state()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text, of=name: of + text
        )


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


SPECS = st.fixed_dictionaries(
    {
        "key_lock": st.sampled_from([KeyLock.LOCAL, KeyLock.TRAINED_K]),
        "steps": st.integers(1, 3),
        "batch": st.integers(1, 4),
        "masked": st.booleans(),
        "count": st.integers(1, 3),
        "size": st.sampled_from([16, 16, 8]),
        "seed": st.integers(0, 99),
        "noun": st.sampled_from(["cat", "teddy bear"]),
        "placeholder": st.sampled_from(["concept", "tom"]),
        "bias": st.sampled_from([0.75, 0.6]),
        "flip": st.sampled_from([0.0, 0.5]),
        "validate_every": st.integers(1, 3),
        "validation_rows": st.integers(1, 4),
    }
)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    specs=st.lists(SPECS, min_size=2, max_size=4),
    absences=st.lists(st.sets(st.integers(0, 3)), max_size=3),
)
def test_a_packed_run_ends_as_it_would_alone(
    exact: BaseModel, specs: list[dict[str, Any]], absences: list[set[int]]
) -> None:
    """Of any mix, while runs join late, pause and leave early."""
    alone = [run(exact, **spec) for spec in specs]
    for one in alone:
        while not one.finished:
            one.step()
    packed, pack, turns = [run(exact, **spec) for spec in specs], Pack(exact), iter(absences)
    while any(not one.finished for one in packed):
        absent = next(turns, set())
        present = [
            one for place, one in enumerate(packed) if place not in absent and not one.finished
        ]
        for one, result in zip(present, pack.step(present), strict=True):
            assert not isinstance(result, Exception), result
            assert result.step == one.steps_done
    for one, other in zip(packed, alone, strict=True):
        assert_close(one, other)
        ours, theirs = one.adapter(dtype="float32"), other.adapter(dtype="float32")
        assert ours.metadata == theirs.metadata
        assert torch.allclose(ours.value_output, theirs.value_output, rtol=0, atol=TOLERANCE)


def test_gradients_are_those_of_training_alone(exact: BaseModel) -> None:
    pack = Pack(exact)
    loops = [run(exact, **spec) for spec in VARIED]
    losses, gradients, inputs = pack._gradients(loops)
    for place, one in enumerate(loops):
        (loss,), (gradient,), (target_input,) = pack._gradients([one])
        assert losses[place] == pytest.approx(loss, abs=TOLERANCE)
        assert torch.allclose(inputs[place], target_input, rtol=0, atol=TOLERANCE)
        assert gradients[place].keys() == gradient.keys()
        for parameter, value in gradient.items():
            assert torch.allclose(gradients[place][parameter], value, rtol=0, atol=TOLERANCE)
            assert float(value.abs().max()) > 1e-6


def test_a_pack_of_one_is_a_step_to_the_bit(tiny_sd15: BaseModel) -> None:
    alone, packed = run(tiny_sd15), run(tiny_sd15)
    with attach(tiny_sd15.unet):
        for _ in range(3):
            assert Pack(tiny_sd15).step([packed]) == [alone.step()]
    assert_same(alone.state(), packed.state())


def spoil(one: TrainingLoop, how: str) -> None:
    with torch.no_grad():
        match how:
            case "value_output":
                one.learning.value_output.fill_(float("inf"))
            case "embedding":
                one.learning.embeddings["text_encoder"][0] = float("nan")
            case "target_input":
                one.learning.target_input[0] = float("nan")
            case "gradient":
                one.learning.value_output.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize(
    ("how", "place"), [("value_output", 0), ("embedding", 1), ("target_input", 2), ("gradient", 1)]
)
def test_a_run_that_diverges_leaves_its_neighbours_untouched(
    sd15: BaseModel, how: str, place: int
) -> None:
    packed = stepped(sd15, [run(sd15, **spec) for spec in VARIED], 1)
    spoil(packed[place], how)
    before = packed[place].state()
    for _ in range(2):
        results = Pack(sd15).step(packed)
        assert isinstance(results[place], TrainingDiverged)
        assert "step 2" in str(results[place])
    after = packed[place].state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value.nan_to_num(7.0), after[name].nan_to_num(7.0)), name
    for other in {0, 1, 2} - {place}:
        assert not isinstance(results[other], Exception)
        assert_close(packed[other], stepped(sd15, [run(sd15, **VARIED[other])], 3)[0])


def test_what_one_run_brings_fails_that_run_alone(sd15: BaseModel) -> None:
    wrong = TrainingLoop(
        sd15,
        encoded(sd15, 2, 16),
        TrainingSettings("cat", steps=3, batch=2),
        torch.ones(2, 1, 5, 5),
    )
    ended = stepped(sd15, [run(sd15, steps=1)], 1)[0]
    elsewhere = run(load_prepared(sd15.directory, dtype=torch.float64))
    healthy = run(sd15, **VARIED[0])
    before = wrong.state()
    first, second, third, fourth = Pack(sd15).step([wrong, ended, healthy, elsewhere])
    assert isinstance(first, WrongShape)
    assert isinstance(second, FailedPrecondition)
    assert isinstance(fourth, InvalidArgument)
    assert not isinstance(third, Exception)
    assert_same(before, wrong.state())
    assert_close(healthy, stepped(sd15, [run(sd15, **VARIED[0])], 1)[0])
    assert elsewhere.steps_done == 0


def test_a_pack_refuses_what_it_cannot_step(sd15: BaseModel, tiny_sd15: BaseModel) -> None:
    one = run(sd15)
    with pytest.raises(InvalidArgument, match="given twice"):
        Pack(sd15).step([one, one])
    assert Pack(sd15).step([]) == []
    with pytest.raises(FailedPrecondition, match="not attached"):
        Pack(tiny_sd15).step([run(tiny_sd15), run(tiny_sd15)])


def calls_of_a_step(base: BaseModel, loops: list[TrainingLoop]) -> int:
    """How often a step of the pack enters the denoiser."""
    entered = []
    counting = base.unet.register_forward_pre_hook(lambda *_: entered.append(1))
    stepped(base, loops, 1)
    counting.remove()
    return len(entered)


@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("backward", [False, True])
def test_memory_that_runs_out_leaves_every_run_as_it_was(
    sd15: BaseModel, done: int, backward: bool
) -> None:
    """At any entry of the denoiser: a first validation, the shared pass, a validation after."""

    def ready() -> list[TrainingLoop]:
        return stepped(sd15, [run(sd15, **spec) for spec in VARIED[1:]], done)

    expected = stepped(sd15, ready(), 1)
    for fatal in range(calls_of_a_step(sd15, ready())):
        loops, entered = ready(), []

        def run_out(*_: object) -> None:
            raise torch.OutOfMemoryError("as the allocator says it")

        def enter(_: object, __: object, output: Any) -> None:
            entered.append(1)  # noqa: B023
            if len(entered) - 1 == fatal:  # noqa: B023
                if not backward:
                    run_out()
                if output[0].requires_grad:
                    output[0].register_hook(run_out)

        befores = [one.state() for one in loops]
        hook = sd15.unet.register_forward_hook(enter)
        try:
            results = Pack(sd15).step(loops)
        except torch.OutOfMemoryError:
            for one, before in zip(loops, befores, strict=True):
                assert_same(before, one.state())
                assert all(parameter.grad is None for parameter in one.learning.parameters())
            hook.remove()
            # Again, with fewer.
            stepped(sd15, loops[:1], 1)
            stepped(sd15, loops[1:], 1)
        else:
            assert backward, "the exception must reach the caller"
            assert not any(isinstance(result, Exception) for result in results)
        hook.remove()
        for one, other in zip(loops, expected, strict=True):
            assert_close(one, other)


def test_a_packed_run_goes_on_from_a_checkpoint_to_the_bit(sd15: BaseModel) -> None:
    undisturbed = stepped(sd15, [run(sd15, **spec) for spec in VARIED], 3)
    first = stepped(sd15, [run(sd15, **spec) for spec in VARIED], 2)
    resumed = [run(sd15, **spec) for spec in VARIED]
    for one, other in zip(resumed, first, strict=True):
        one.load(load(save(other.state())))
    stepped(sd15, resumed, 1)
    for one, other in zip(resumed, undisturbed, strict=True):
        assert_same(one.state(), other.state())
        assert one.adapter().to_bytes() == other.adapter().to_bytes()
