"""The shipped base: loads unmodified in diffusers, obeys prompts, stays within its size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from perfuse.attach import BaseModel, generate, plan
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.judgement import judge

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.load(DIRECTORY)


def test_the_weights_stay_within_their_size() -> None:
    weights = list(DIRECTORY.rglob("*.safetensors"))
    assert {path.parent.name for path in weights} == {"unet", "vae", "text_encoder", "perfuse"}
    assert max(path.stat().st_size for path in weights) <= 14 * MEGABYTE
    assert sum(path.stat().st_size for path in weights) <= 24 * MEGABYTE


def test_unmodified_diffusers_loads_it_and_draws_the_same_picture(base: BaseModel) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(DIRECTORY, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompt = "a photo of a red cat in the snow"
    stock = pipeline(
        prompt,
        generator=torch.Generator().manual_seed(1),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="np",
    ).images
    ours = generate(base, [plan(base, prompt)], seeds=[1], steps=4, guidance=3.0, output="np")
    assert (ours == stock).all()


def test_its_covariance_comes_from_enough_captions(base: BaseModel) -> None:
    assert base.covariance is not None
    assert base.covariance.captions >= 20_000
    assert base.covariance.fingerprint == base.fingerprint


def test_it_does_what_held_out_captions_say(base: BaseModel) -> None:
    """A small sample; docs/toybox.md has the table over 300."""
    accuracy = judge(base, 30).accuracy
    for attribute, bar in {"scene": 0.95, "kind": 0.9, "worn": 0.85, "seat": 0.85}.items():
        assert accuracy[attribute] >= bar, accuracy
    assert accuracy["colour"] >= 0.8, accuracy


def test_nothing_of_the_build_machine_is_in_the_files() -> None:
    for path in Path(DIRECTORY).rglob("*.json"):
        assert "_name_or_path" not in path.read_text()
