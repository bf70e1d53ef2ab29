"""Adapters with tensors, drawn from a seed or fixed for good."""

from __future__ import annotations

from dataclasses import replace

import torch

from adapter.samples import metadata
from perfuse.adapter.header import AdapterMetadata, Encoder
from perfuse.adapter.tensors import Adapter


def adapter(
    described: AdapterMetadata, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(width, generator=draw).to(dtype)
        for name, width in described.tensor_widths().items()
    }
    return Adapter(
        metadata=described,
        target_input=tensors["target_input"],
        super_category_encoding=tensors["super_category_encoding"],
        embeddings={e.name: tensors[f"embedding.{e.name}"] for e in described.encoders},
        value_output=tensors["value_output"],
        key_output=tensors.get("key_output"),
    )


def tensors_of(made: Adapter) -> dict[str, torch.Tensor]:
    tensors = {f"embedding.{name}": tensor for name, tensor in made.embeddings.items()}
    tensors |= {
        "target_input": made.target_input,
        "super_category_encoding": made.super_category_encoding,
        "value_output": made.value_output,
    }
    return tensors if made.key_output is None else tensors | {"key_output": made.key_output}


def fixed(reverse: bool = False) -> Adapter:
    """An adapter whose every value float16 holds exactly, its mappings in either order."""
    described = metadata(
        encoders=(Encoder("text_encoder", 6), Encoder("text_encoder_2", 4)),
        key_lock="TRAINED_K",
        super_category="Möwe",
    )
    tensors = {
        name: torch.arange(1, width + 1) / 64 - index
        for index, (name, width) in enumerate(described.tensor_widths().items())
    }
    embeddings = {e.name: tensors[f"embedding.{e.name}"] for e in described.encoders}
    training = {"steps": 400, "mask": "alpha", "loss": 0.1}
    if reverse:
        embeddings = dict(reversed(embeddings.items()))
        training = dict(reversed(training.items()))
    return Adapter(
        replace(described, training=training),
        tensors["target_input"],
        tensors["super_category_encoding"],
        embeddings,
        tensors["value_output"],
        tensors["key_output"],
    )
