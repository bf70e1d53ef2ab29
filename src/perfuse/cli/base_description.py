"""What the Registry is told about a base model, read off its directory. Loads torch when called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from perfuse.client import BaseModel
from perfuse.errors import FailedPrecondition

__all__ = ["attach_library", "describe"]


def describe(
    base_model: str,
    directory: Path,
    *,
    display_name: str = "",
    labels: Mapping[str, str] | None = None,
) -> BaseModel:
    """A base model as `base_models.create` takes it.

    Args:
        base_model: its id to be.
        directory: in diffusers layout.

    Raises:
        NotFound, BaseModelUnsuitable: as `perfuse.attach.BaseModel.load` says.
    """
    base = attach_library().BaseModel.load(directory)
    return BaseModel(
        name=f"baseModels/{base_model}",
        fingerprint=base.fingerprint,
        architecture=base.architecture,
        conditioning_width=base.conditioning_width,
        layers={layer.name: layer.width for layer in base.layers},
        encoders={encoder.name: encoder.width for encoder in base.encoders},
        covariance_digest="" if base.covariance is None else base.covariance.digest,
        display_name=display_name,
        labels=labels or {},
    )


def attach_library() -> ModuleType:
    """`perfuse.attach`, loaded when a command needs it: it brings torch and diffusers.

    Raises:
        FailedPrecondition: they are not installed.
    """
    # Their start-up remarks are about picture processors that no command of ours uses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        from perfuse import attach
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"this command needs {error.name}: pip install 'perfuse[engine]'"
        ) from error
    attach.silence_loading()
    return attach
