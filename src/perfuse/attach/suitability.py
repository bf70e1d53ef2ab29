"""Whether a directory is a base model that Perfuse can load and edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from perfuse.attach import fingerprint as naming
from perfuse.errors import BaseModelUnsuitable, NotFound


def pipeline_class(home: Path) -> Any:
    """The diffusers pipeline class for a directory, by what it contains.

    Raises:
        NotFound: the directory or one of its parts is not there.
        BaseModelUnsuitable: a part is of a class that is not supported.
    """
    if not home.is_dir():
        raise NotFound(
            f"{home} is not a directory; give a local base model in diffusers layout "
            "(nothing is fetched from a hub)"
        )
    index = naming.read_json(home / "model_index.json")
    parts = ["unet", "vae", "scheduler", "tokenizer", "text_encoder"]
    two = index.get("text_encoder_2") not in (None, [None, None])
    if two:
        parts += ["tokenizer_2", "text_encoder_2"]
    missing = [part for part in parts if not (home / part).is_dir()]
    if missing:
        raise NotFound(
            f"{home} lacks {', '.join(f'{part}/' for part in missing)}; a base model needs "
            f"{', '.join(f'{part}/' for part in parts)}"
        )
    denoiser = (index.get("unet") or [None, None])[-1]
    if denoiser != "UNet2DConditionModel":
        raise BaseModelUnsuitable(
            f"{home} has a denoiser of class {denoiser}; UNet2DConditionModel is supported"
        )
    for part in parts:
        if part.startswith("text_encoder"):
            kind = (index.get(part) or [None, None])[-1]
            if kind not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
                raise BaseModelUnsuitable(
                    f"{home}/{part} is a {kind}; CLIPTextModel and CLIPTextModelWithProjection "
                    "are supported"
                )
    return StableDiffusionXLPipeline if two else StableDiffusionPipeline


def require_supported(unet: Any) -> None:
    """Refuse denoisers that read more than text, time and SDXL's sizes.

    Raises:
        BaseModelUnsuitable: names the setting.
    """
    config = unet.config
    allowed: dict[str, tuple[object, ...]] = {
        "encoder_hid_dim_type": (None,),
        "class_embed_type": (None,),
        "addition_embed_type": (None, "text_time"),
        "time_cond_proj_dim": (None,),
    }
    for key, values in allowed.items():
        if config.get(key) not in values:
            raise BaseModelUnsuitable(
                f"the denoiser's {key} is {config.get(key)!r}; supported: "
                f"{', '.join(map(str, values))}"
            )


def require_complete(pipeline: Any, digests: dict[str, str]) -> None:
    """Refuse files that lack a weight: diffusers would fill it with random numbers.

    Raises:
        BaseModelUnsuitable: names the first few that are missing.
    """
    for component in naming.COMPONENTS:
        module = getattr(pipeline, component, None)
        if module is None:
            continue
        wanted = {f"{component}/{naming.canonical_name(name)}" for name in module.state_dict()}
        missing = sorted(wanted - digests.keys())
        if missing:
            shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise BaseModelUnsuitable(
                f"the files of {component} lack {len(missing)} of {len(wanted)} weights ({shown}); "
                "they may be damaged or of another version"
            )
