"""A compiled denoiser has one graph for each shape that was warmed up, and never another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import load_prepared, random_adapter

from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    attach,
    concatenate,
    denoise,
    plan,
    unconditional,
)
from perfuse.errors import FailedPrecondition
from perfuse_renderer.engine.compiled import CompiledDenoiser
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Place
from perfuse_renderer.engine.row import Picture, Row
from perfuse_renderer.engine.schedulers import KINDS
from perfuse_renderer.engine.stepper import Stepper

from .listening import render

CONCEPTS = {"tom": "cat", "rex": "dog", "shades": "hat"}
PROMPTS = (
    "a photo of a cat",
    "a photo of <tom> in the garden",
    "<rex> wearing <shades>",
    "<tom> and <rex> wearing <shades>",
)


class Counting:
    """A backend that compiles nothing and counts how often it was asked to."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        forward: Callable[..., Any] = graph.forward
        return forward


def made(base: BaseModel, prompt: str, seed: int, **settings: Any) -> ConditioningPlan:
    """A plan with concepts that no other seed has."""
    concepts = [
        PlannedConcept(name, random_adapter(base, 10 * seed + index, category))
        for index, (name, category) in enumerate(CONCEPTS.items())
        if f"<{name}>" in prompt
    ]
    return plan(base, prompt, concepts, **settings)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def stepped(base: BaseModel, denoiser: Any, pictures: list[Picture]) -> list[torch.Tensor]:
    """Latents of pictures that share their batches, in buckets of up to four lanes."""
    places = [Place(render("t", [asked])[0], 0, Row(base, asked)) for asked in pictures]
    stepper = Stepper(base, denoiser, 4, buckets=EngineSettings(max_lanes=4).buckets())
    while going := [place for place in places if place.row and not place.row.done]:
        batch, lanes = [], 0
        for place in going:
            if lanes + place.picture.lanes <= 4:
                batch.append(place)
                lanes += place.picture.lanes
        assert not stepper.step(batch).failed
    return [place.row.latents for place in places if place.row]


def test_nothing_that_a_request_says_makes_a_graph(tiny_sd15_dir: Path) -> None:
    base = load_prepared(tiny_sd15_dir, dtype=torch.float64)
    # As on a GPU; rows then lie in memory now so, now otherwise.
    base.unet.to(memory_format=torch.channels_last)
    counting = Counting()
    compiled = CompiledDenoiser(base, backend=counting)
    engine = Engine(base, EngineSettings(max_lanes=4, compile=True), compiled)
    try:
        engine.warm_up()
        assert counting.graphs == len(compiled.shapes) == 3
        assert compiled.shapes == {(lanes, 4, 8, 8, 77) for lanes in (1, 2, 4)}
        nothing = unconditional(base)
        for turn, scheduler in enumerate(["", *KINDS]):
            pictures = [
                Picture(
                    made(base, PROMPTS[(turn + index) % 4], turn),
                    nothing if index else made(base, PROMPTS[turn % 3], turn + 20),
                    *(turn, 3 + turn % 3, [3.0, 1.0, 9.0][(turn + index) % 3], scheduler, 16, 16),
                )
                for index in range(3)
            ]
            found = stepped(base, compiled, pictures)
            expected = stepped(base, denoise, pictures)
            for one, other in zip(found, expected, strict=True):
                assert close(one, other, 1e-12)
            job, listener = render(f"t{turn}", pictures)
            engine.submit(job)
            assert len(listener.wait().pictures) == 3
        assert counting.graphs == 3
        # What was not warmed up is stepped without a graph; nobody waits for a compiler.
        long = made(base, "<tom> " + "big red cat " * 30, 1, max_chunks=2)
        others = [
            Picture(made(base, PROMPTS[1], 1), nothing, 1, 2, 3.0, "ddim", 24, 16),
            Picture(long, unconditional(base, 2), 1, 2, 3.0, "ddim", 16, 16),
        ]
        for other in others:
            job, listener = render("t", [other])
            engine.submit(job)
            assert len(listener.wait().pictures) == 1
        assert counting.graphs == 3
    finally:
        engine.drain(0)


def test_two_encoders_and_sizes_make_no_other_graph(tiny_sdxl_dir: Path) -> None:
    base = load_prepared(tiny_sdxl_dir, dtype=torch.float64)
    counting = Counting()
    compiled = CompiledDenoiser(base, backend=counting)
    engine = Engine(base, EngineSettings(max_lanes=2, compile=True), compiled)
    try:
        engine.warm_up(lanes=[2])
        nothing = unconditional(base)
        for turn, scheduler in enumerate(("euler", "ddim")):
            asked = Picture(
                made(base, PROMPTS[turn + 2], turn), nothing, 1, 3, 3.0, scheduler, 16, 16
            )
            (found,) = stepped(base, compiled, [asked])
            (expected,) = stepped(base, denoise, [asked])
            assert close(found, expected, 1e-11)
        assert counting.graphs == 1
    finally:
        engine.drain(0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_real_compiler_s_pictures_are_the_usual_ones(tiny_sd15: BaseModel) -> None:
    """Compiled code adds up in another order: the last bits of float32, grown over the steps."""
    base = tiny_sd15
    compiled = CompiledDenoiser(base)
    engine = Engine(base, EngineSettings(max_lanes=2, compile=True), compiled)
    try:
        engine.warm_up(lanes=[2])
        assert compiled.shapes == {(2, 4, 8, 8, 77)}
        nothing = unconditional(base)
        for turn, prompt in enumerate(PROMPTS):
            asked = Picture(made(base, prompt, turn), nothing, turn, 4, 3.0, "euler", 16, 16)
            (found,) = stepped(base, compiled, [asked])
            (expected,) = stepped(base, denoise, [asked])
            assert close(found, expected, 2e-5)
            assert not torch.equal(found, expected)
    finally:
        engine.drain(0)


def test_a_machine_that_cannot_compile_says_so_before_it_serves(base: BaseModel) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    settings = EngineSettings(max_lanes=2, compile=True)
    engine = Engine(base, settings, CompiledDenoiser(base, backend=broken))
    try:
        with pytest.raises(FailedPrecondition, match="cannot be compiled on this machine"):
            engine.warm_up(lanes=[2])
    finally:
        engine.drain(0)


def test_compiling_fills_batches_up() -> None:
    assert EngineSettings(compile=True).pad
    assert not EngineSettings().pad
    assert EngineSettings(max_lanes=12).buckets() == (1, 2, 4, 8, 12)


@pytest.mark.parametrize("scheduler", ["", *KINDS])
def test_rows_in_half_precision_stay_so(half: BaseModel, scheduler: str) -> None:
    """A scheduler that widened them would make another shape of batch, and a slower one."""
    nothing = unconditional(half)
    row = Row(half, Picture(nothing, nothing, 1, 3, 2.0, scheduler, 16, 16))
    with torch.no_grad(), attach(half.unet):
        while not row.done:
            latents, timesteps = row.model_input()
            assert latents.dtype == torch.bfloat16
            row.advance(denoise(half, latents, timesteps, concatenate(row.conditioning)))
    assert row.latents.dtype == torch.bfloat16
    assert row.is_finite


@pytest.fixture(scope="module")
def half(tiny_sd15_dir: Path) -> BaseModel:
    return load_prepared(tiny_sd15_dir, dtype=torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_graphs_give_each_picture_its_own(tiny_sd15_dir: Path) -> None:
    """CUDA graphs write where they wrote before: no row may see another step's prediction."""
    base = load_prepared(tiny_sd15_dir, device="cuda")
    base.unet.to(memory_format=torch.channels_last)
    compiled = CompiledDenoiser(base)
    engine = Engine(base, EngineSettings(max_lanes=4, compile=True), compiled)
    try:
        engine.warm_up()
        nothing = unconditional(base)
        pictures = [
            Picture(made(base, PROMPTS[turn % 4], turn), nothing, turn, 5, 1.0, scheduler, 16, 16)
            for turn, scheduler in enumerate(KINDS)
        ]
        jobs = [render(f"t{turn}", [asked]) for turn, asked in enumerate(pictures)]
        for job, _ in jobs:
            engine.submit(job)
        found = [listener.wait().pictures[0] for _, listener in jobs]
        assert len(compiled.shapes) == 3
    finally:
        engine.drain(0)
    plain = Engine(base, EngineSettings(max_lanes=4))
    try:
        for asked, pixels in zip(pictures, found, strict=True):
            job, listener = render("t", [asked])
            plain.submit(job)
            expected = listener.wait().pictures[0]
            assert int((pixels.int() - expected.int()).abs().max()) <= 2
    finally:
        plain.drain(0)
