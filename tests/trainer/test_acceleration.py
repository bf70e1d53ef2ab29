"""What is chosen for speed changes no gradient; what is frozen costs no gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import load_prepared, words_covariance
from torch.utils._python_dispatch import TorchDispatchMode

from perfuse.attach import BaseModel, attach
from perfuse_trainer.learning.acceleration import Acceleration
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.pictures.images import TrainingPicture

AS_IT_IS = Acceleration()


def loops(base: BaseModel, count: int = 2) -> list[TrainingLoop]:
    pixels = torch.randint(
        0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    latents = PictureLatents.encode(base, [TrainingPicture("one.png", pixels, None)])
    return [
        TrainingLoop(base, latents, TrainingSettings("cat", steps=4, batch=2, seed=seed))
        for seed in range(count)
    ]


def gradients(base: BaseModel) -> list[torch.Tensor]:
    with attach(base.unet):
        _, found, _ = Pack(base)._gradients(loops(base))
    return [gradient for one in found for gradient in one.values()]


@pytest.fixture
def exact(tiny_sd15_dir: Path) -> BaseModel:
    return load_prepared(tiny_sd15_dir, dtype=torch.float64)


def assert_same_gradients(base: BaseModel, chosen: Acceleration) -> None:
    AS_IT_IS.apply(base)
    expected = gradients(base)
    chosen.apply(base)
    for ours, theirs in zip(gradients(base), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_layout_changes_no_gradient(exact: BaseModel) -> None:
    assert_same_gradients(exact, Acceleration(channels_last=True))
    kernel = exact.unet.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()


def test_checkpointing_computes_again_and_changes_no_gradient(exact: BaseModel) -> None:
    entered: list[object] = []
    # Every block of the two kinds that diffusers checkpoints.
    blocks = [exact.unet.mid_block.resnets[1], exact.layers[0].attention]
    for block in blocks:
        block.register_forward_pre_hook(lambda module, _: entered.append(module))
    assert_same_gradients(exact, Acceleration(checkpointing=True))
    # Once as it is; once forwards and once on the way back.
    assert [entered.count(block) for block in blocks] == [3, 3]


# Dynamo's own remarks while it traces.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_compiling_changes_no_gradient(exact: BaseModel) -> None:
    """Dynamo's tracing alone; what a backend makes of the graph is the backend's."""
    assert_same_gradients(exact, Acceleration(compile="eager"))


def test_in_bfloat16_what_is_trained_stays_in_float32(tiny_sd15_dir: Path) -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        bare = Acceleration(dtype=dtype).load(tiny_sd15_dir)  # type: ignore[arg-type]
        base = replace(bare, covariance=words_covariance(bare))
        assert base.dtype == getattr(torch, dtype)
        (one,) = loops(base, 1)
        with attach(base.unet):
            losses[dtype] = [one.step().loss for _ in range(3)]
        assert {value.dtype for name, value in one.state().items() if "/" in name} == {
            torch.float32
        }
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


class FrozenWatch(TorchDispatchMode):
    """Notes which gradients the backward passes of convolutions and norms were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[tuple[str, list[bool]]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name in {
            "convolution_backward",
            "native_group_norm_backward",
            "native_layer_norm_backward",
        }:
            self.masks.append((name, list(arguments[-1])))
        return function(*arguments, **(keywords or {}))


def test_frozen_weights_cost_no_gradient(tiny_sdxl: BaseModel) -> None:
    frozen = [tiny_sdxl.unet, tiny_sdxl.vae, *(one.module for one in tiny_sdxl.encoders)]
    assert not any(weight.requires_grad for module in frozen for weight in module.parameters())
    with FrozenWatch() as watch:
        gradients(tiny_sdxl)
    assert {name for name, _ in watch.masks} == {
        "convolution_backward",
        "native_group_norm_backward",
        "native_layer_norm_backward",
    }
    assert all(mask == [True, False, False] for _, mask in watch.masks)
