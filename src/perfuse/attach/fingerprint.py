"""One name for a base model's weights, whatever the files that carry them.

The fingerprint covers the denoiser, the text encoders, the autoencoder, the tokenizers'
vocabularies, the quantity predicted, and the few numbers that change the function computed
without changing a tensor (head counts, activation, latent scale). It is taken from the files, one
tensor at a time, so it never needs a second copy of the weights and never depends on the dtype
that the weights are later loaded in.

Each floating-point tensor is rounded to float16 before it is hashed. Rounding float32 to float16
is how published half-precision variants are made, and it is idempotent, so both files name the
same base model. A file stored in bfloat16 holds other numbers and gets another fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from perfuse.errors import BaseModelUnsuitable, NotFound

HALF_PRECISION = "fp16"
"""The one file variant that is looked for where the plain files are missing."""

COMPONENTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
"""Component directories whose tensors count, with the stem of their files."""

# Names under which older releases of the libraries wrote the same tensors.
_RENAMED = (
    (re.compile(r"^text_model\."), ""),
    (re.compile(r"\.query\.(weight|bias)$"), r".to_q.\1"),
    (re.compile(r"\.key\.(weight|bias)$"), r".to_k.\1"),
    (re.compile(r"\.value\.(weight|bias)$"), r".to_v.\1"),
    (re.compile(r"\.proj_attn\.(weight|bias)$"), r".to_out.0.\1"),
)
_NOT_WEIGHTS = re.compile(r"(^|\.)position_ids$")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the base model.

    Raises:
        NotFound: there is no such file.
        BaseModelUnsuitable: it is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"{path} is missing; a base model is a directory in diffusers layout, as "
            "`save_pretrained` of a Stable Diffusion pipeline writes it"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BaseModelUnsuitable(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise BaseModelUnsuitable(f"{path} holds a JSON {type(content).__name__}, not an object")
    return content


def file_variant(directory: Path) -> str | None:
    """The file variant to load: None where every component has plain files, else "fp16".

    Raises:
        BaseModelUnsuitable: a component has neither.
    """
    plain = True
    for component, stem in _present(directory):
        if _listed(directory / component, stem, None):
            continue
        plain = False
        if not _listed(directory / component, stem, HALF_PRECISION):
            others = sorted(path.name for path in (directory / component).glob("*.bin"))
            remedy = (
                f"found {', '.join(others)}; pickled weights are never opened, convert them"
                if others
                else "the component has no weights"
            )
            raise BaseModelUnsuitable(
                f"{directory / component} holds no {stem}.safetensors, sharded or in the fp16 "
                f"variant: {remedy}"
            )
    return None if plain else HALF_PRECISION


def tensors(directory: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Every weight of the base model as (component, canonical name, tensor), read one by one.

    Raises:
        BaseModelUnsuitable: a file is damaged or missing from its shard index.
    """
    variant = file_variant(directory)
    for component, stem in _present(directory):
        home = directory / component
        files = _listed(home, stem, variant) or _listed(home, stem, None)
        for path in files:
            try:
                with safe_open(path, framework="pt", device="cpu") as handle:
                    for name in handle.keys():  # noqa: SIM118 - the handle is not a mapping
                        if not _NOT_WEIGHTS.search(name):
                            yield component, canonical_name(name), handle.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise BaseModelUnsuitable(f"{path} cannot be read ({error})") from error


def canonical_name(name: str) -> str:
    """A tensor's name as today's libraries write it, without the wrapper of a bare text encoder."""
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def tensor_digests(directory: Path) -> dict[str, str]:
    """One digest per weight, keyed "component/canonical name"."""
    return {
        f"{component}/{name}": _digest(tensor) for component, name, tensor in tensors(directory)
    }


def combine(digests: dict[str, str], function: dict[str, Any]) -> str:
    """The fingerprint: "sha256:" and 64 hexadecimal digits.

    Args:
        digests: what `tensor_digests` gave.
        function: what decides the function computed beside the weights, as JSON values:
            vocabularies, prediction type, head counts.
    """
    text = json.dumps(
        {"weights": digests, "function": function},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _digest(tensor: torch.Tensor) -> str:
    """SHA-256 over shape and values, floating-point values rounded to float16."""
    kind = "f16" if tensor.is_floating_point() else str(tensor.dtype)
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float16)
    state = hashlib.sha256(f"{kind}{list(tensor.shape)}".encode())
    state.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _present(directory: Path) -> list[tuple[str, str]]:
    return [(name, stem) for name, stem in COMPONENTS.items() if (directory / name).is_dir()]


def _listed(home: Path, stem: str, variant: str | None) -> list[Path]:
    """The files of one component, single or sharded; empty where that variant is absent."""
    dotted = f".{variant}" if variant else ""
    single = home / f"{stem}{dotted}.safetensors"
    if single.is_file():
        return [single]
    index = home / f"{stem}.safetensors.index{dotted}.json"
    if not index.is_file():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise BaseModelUnsuitable(f"{index} has no weight_map from tensor names to files")
    paths = [home / name for name in sorted(set(shards.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise BaseModelUnsuitable(f"{index} names {', '.join(missing)}, which is not there")
    return paths
