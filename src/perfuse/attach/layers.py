"""The cross-attention layers of a denoiser, in the order that adapters declare.

The order is that of execution: down blocks, middle, up blocks, and within a block by attention
and transformer index. It is spelled out here and not taken from the order in which diffusers
registers its modules, because adapters written today must mean the same layers tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from perfuse.errors import BaseModelUnsuitable


@dataclass(frozen=True, eq=False)
class CrossAttentionLayer:
    """One cross-attention layer: a key and a value projection of the text encoding.

    Attributes:
        name: dotted path inside the denoiser, such as
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2".
        attention: the layer itself; its processor is what attaching replaces.
    """

    name: str
    attention: Any

    @property
    def key_weight(self) -> torch.Tensor:
        """W_K, [d_l, d], frozen."""
        weight: torch.Tensor = self.attention.to_k.weight
        return weight

    @property
    def value_weight(self) -> torch.Tensor:
        """W_V, [d_l, d], frozen."""
        weight: torch.Tensor = self.attention.to_v.weight
        return weight

    @property
    def width(self) -> int:
        """d_l, the outputs of either projection."""
        return int(self.value_weight.shape[0])


def cross_attention_layers(unet: Any) -> tuple[CrossAttentionLayer, ...]:
    """Every cross-attention layer of a `UNet2DConditionModel`, in the declared order.

    Raises:
        BaseModelUnsuitable: a layer computes more than a product with its weight, so that an edit
            of its output would not be the edit of the paper.
    """
    layers = tuple(_walk(unet))
    if not layers:
        raise BaseModelUnsuitable("the denoiser has no cross-attention layer, so nothing to edit")
    for layer in layers:
        _judge(layer, layers[0])
    return layers


def _walk(unet: Any) -> Iterator[CrossAttentionLayer]:
    blocks = [(f"down_blocks.{index}", block) for index, block in enumerate(unet.down_blocks)]
    if unet.mid_block is not None:
        blocks.append(("mid_block", unet.mid_block))
    blocks += [(f"up_blocks.{index}", block) for index, block in enumerate(unet.up_blocks)]
    for home, block in blocks:
        for place, transformer in enumerate(getattr(block, "attentions", None) or ()):
            for depth, inner in enumerate(getattr(transformer, "transformer_blocks", ())):
                name = f"{home}.attentions.{place}.transformer_blocks.{depth}"
                if inner.attn1.is_cross_attention:
                    raise BaseModelUnsuitable(
                        f"{name}.attn1 attends to text where self-attention is expected; "
                        "denoisers with only_cross_attention are not supported"
                    )
                if inner.attn2 is not None and inner.attn2.is_cross_attention:
                    yield CrossAttentionLayer(f"{name}.attn2", inner.attn2)


def _judge(layer: CrossAttentionLayer, first: CrossAttentionLayer) -> None:
    attention = layer.attention
    extras = [
        extra
        for extra in ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
        if getattr(attention, extra, None) is not None
    ]
    if attention.to_k.bias is not None or attention.to_v.bias is not None:
        extras.append("a bias on to_k or to_v")
    if extras:
        raise BaseModelUnsuitable(
            f"{layer.name} has {', '.join(extras)}; keys and values must be one matrix times the "
            "text encoding"
        )
    if layer.key_weight.shape != layer.value_weight.shape:
        raise BaseModelUnsuitable(
            f"{layer.name} has keys {list(layer.key_weight.shape)} and values "
            f"{list(layer.value_weight.shape)}; both must have the same shape"
        )
    if layer.value_weight.shape[1] != first.value_weight.shape[1]:
        raise BaseModelUnsuitable(
            f"{layer.name} reads encodings {layer.value_weight.shape[1]} wide and {first.name} "
            f"reads {first.value_weight.shape[1]}; all layers must read the same text encoding"
        )
