"""Base models that stay: loaded, attached, and warm before anyone calls."""

from __future__ import annotations

from pathlib import Path

import torch

from perfuse.attach import BaseModel, silence_loading
from perfuse.errors import BaseModelMismatch
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.stepper import Denoise

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_base(
    directory: str | Path, device: str, dtype: str, *, fingerprint: str | None = None
) -> BaseModel:
    """Load a base model.

    Args:
        directory: in diffusers layout.
        device, dtype: where and in what its weights will be.
        fingerprint: that it must have, or None.

    Raises:
        NotFound, BaseModelUnsuitable, DataLoss: as `BaseModel.load`.
        BaseModelMismatch: it has another fingerprint.
    """
    silence_loading()
    base = BaseModel.load(directory, dtype=DTYPES[dtype], device=device)
    if fingerprint is not None and base.fingerprint != fingerprint:
        raise BaseModelMismatch(
            f"{directory} holds {base.fingerprint} on this machine and {fingerprint} at the front "
            "door. Put the same files on both"
        )
    if base.device.type != "cpu":
        base.unet.to(memory_format=torch.channels_last)
    return base


def forget_steps(base: BaseModel) -> None:
    """Let go of the weights that only denoising and decoding read.

    What is left plans prompts: text encoders and the projections of keys and values.
    """
    read = {
        projection
        for layer in base.layers
        for projection in (layer.attention.to_k, layer.attention.to_v)
    }
    for module in (*base.unet.modules(), *base.vae.modules()):
        if module not in read:
            for name, weight in list(module.named_parameters(recurse=False)):
                empty = torch.nn.Parameter(weight.to("meta"), requires_grad=False)
                setattr(module, name, empty)


def start_engine(
    base: BaseModel, settings: EngineSettings, denoiser: Denoise | None = None
) -> Engine:
    """An engine that has stepped, so that the first caller's picture is as fast as the next.

    Raises:
        FailedPrecondition: not even the smallest batch fits into memory.
    """
    engine = Engine(base, settings, denoiser) if denoiser else Engine(base, settings)
    # Every size of batch where a new one costs something; elsewhere one, for a CPU is slow.
    every = settings.pad or base.device.type != "cpu"
    try:
        engine.warm_up(lanes=() if every else (min(2, settings.max_lanes),))
    except BaseException:
        engine.drain(0.0)
        raise
    return engine
