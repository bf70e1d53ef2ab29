"""Schedulers by name: diffusers' own, one object for each row, never shared."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers

from perfuse.attach import BaseModel
from perfuse.errors import InvalidArgument


@dataclass(frozen=True)
class _Kind:
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


KINDS: Mapping[str, _Kind] = {
    "ddim": _Kind("DDIMScheduler"),
    "ddpm": _Kind("DDPMScheduler"),
    "dpm++2m": _Kind("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++2m-karras": _Kind(
        "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}
    ),
    "euler": _Kind("EulerDiscreteScheduler"),
    "euler-ancestral": _Kind("EulerAncestralDiscreteScheduler"),
    "heun": _Kind("HeunDiscreteScheduler"),
    # Without Runge-Kutta steps, as Stable Diffusion has it; with them it needs four steps or more.
    "pndm": _Kind("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": _Kind("UniPCMultistepScheduler"),
}
"""The names that a request may give; an empty name is the base model's own scheduler.

All of them work with what this distribution installs: diffusers' LMS, for one, would need scipy.
"""


def scheduler_name(base: BaseModel, wanted: str) -> str:
    """The name under which a render with this choice is recorded.

    Raises:
        InvalidArgument: there is no such scheduler.
    """
    if not wanted:
        own = type(base.pipeline.scheduler).__name__
        return next((name for name, kind in KINDS.items() if kind.name == own), own)
    if wanted not in KINDS:
        raise InvalidArgument.in_field(
            "scheduler", f"{wanted[:40]!r} is not known; choose one of {', '.join(KINDS)}"
        )
    return wanted


def make_scheduler(base: BaseModel, wanted: str) -> Any:
    """A new scheduler of the kind `wanted`, or the base model's own kind where it is empty.

    The noise schedule and the prediction type are always the base model's.

    Raises:
        InvalidArgument: there is no such scheduler.
    """
    own = base.pipeline.scheduler
    if not wanted:
        return type(own).from_config(own.config)
    named = KINDS[scheduler_name(base, wanted)]
    kind = getattr(diffusers, named.name)
    accepted = inspect.signature(kind.__init__).parameters
    # As Stable Diffusion's pipelines correct a scheduler that they are given: latents are not
    # confined to -1..1, and timesteps count from 1.
    corrected = {"clip_sample": False, "steps_offset": own.config.get("steps_offset", 1)}
    settings = {name: value for name, value in corrected.items() if name in accepted}
    return kind.from_config(own.config, **settings, **named.settings)


def step_arguments(scheduler: Any, generator: Any) -> dict[str, Any]:
    """What `scheduler.step` takes beside prediction, timestep and latents, as pipelines give it."""
    accepted = inspect.signature(scheduler.step).parameters
    arguments: dict[str, Any] = {}
    if "eta" in accepted:
        arguments["eta"] = 0.0
    if "generator" in accepted:
        arguments["generator"] = generator
    return arguments
