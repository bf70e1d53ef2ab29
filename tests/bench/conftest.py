"""What tests of the fidelity harness share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.fidelity.form import QUICK, Form
from bench.renderer_bases import toybox
from perfuse.attach import BaseModel


@pytest.fixture(scope="session")
def toybox_base() -> BaseModel:
    torch.set_num_threads(1)
    return toybox()


@pytest.fixture(scope="session")
def tiny_form() -> Form:
    """So small that its figures say nothing, and every claim has what it needs."""
    return replace(
        QUICK,
        name="tiny",
        # Two, since one does not blend.
        concepts=2,
        # The first has no companions.
        prompts=2,
        seeds=(1,),
        pictures=2,
        steps=2,
        batch=1,
        over=1,
        denoising=1,
        biases=(0.5, 0.9),
        scales=(1.0,),
        inversion_rates=(0.01,),
        lora_rates=(0.001,),
        blend_scenes=1,
        blends=1,
    )
