"""Real base models' attention layouts, from their published configurations, without weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from perfuse.adapter import Adapter, AdapterMetadata, Encoder, Layer
from perfuse.attach import Conditioning, attach, cross_attention_layers
from perfuse.errors import BaseModelUnsuitable

SD15: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "layers_per_block": 2,
}
SD21: dict[str, Any] = {
    **SD15,
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
SD15_LAYERS = [
    *((f"down_blocks.0.attentions.{n}", 320) for n in range(2)),
    *((f"down_blocks.1.attentions.{n}", 640) for n in range(2)),
    *((f"down_blocks.2.attentions.{n}", 1280) for n in range(2)),
    ("mid_block.attentions.0", 1280),
    *((f"up_blocks.1.attentions.{n}", 1280) for n in range(3)),
    *((f"up_blocks.2.attentions.{n}", 640) for n in range(3)),
    *((f"up_blocks.3.attentions.{n}", 320) for n in range(3)),
]
SDXL_LAYERS = [
    (f"{home}.attentions.{place}", depth, width)
    for home, places, depths, width in (
        ("down_blocks.1", 2, 2, 640),
        ("down_blocks.2", 2, 10, 1280),
        ("mid_block", 1, 10, 1280),
        ("up_blocks.0", 3, 10, 1280),
        ("up_blocks.1", 3, 2, 640),
    )
    for place in range(places)
    for depth in range(depths)
]


_made: dict[str, Any] = {}


def denoiser(config: dict[str, Any]) -> Any:
    """A denoiser without weights; the tests that change one make their own."""
    key = repr(sorted(config.items()))
    if key not in _made:
        _made[key] = _fresh(config)
    return _made[key]


def _fresh(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def adapter(config: dict[str, Any], encoders: list[tuple[str, int]], key_lock: str) -> Adapter:
    layers = cross_attention_layers(denoiser(config))
    width = config["cross_attention_dim"]
    outputs = torch.ones(sum(layer.width for layer in layers))
    return Adapter(
        metadata=AdapterMetadata(
            base_model="sha256:" + "0" * 64,
            architecture=f"sd-{width}",
            layers=tuple(Layer(layer.name, layer.width) for layer in layers),
            encoders=tuple(Encoder(name, size) for name, size in encoders),
            conditioning_width=width,
            super_category="teddy bear",
            placeholder="teddy",
            key_lock=key_lock,
            bias=0.7,
            temperature=0.15,
            training={"steps": 400, "learning_rate": 0.03, "pictures": 6},
        ),
        target_input=torch.ones(width),
        super_category_encoding=torch.ones(width),
        embeddings={name: torch.ones(size) for name, size in encoders},
        value_output=outputs,
        key_output=outputs if key_lock == "TRAINED_K" else None,
    )


@pytest.mark.parametrize("config", [SD15, SD21], ids=["SD1.5", "SD2.1"])
def test_stable_diffusion_1_and_2(config: dict[str, Any]) -> None:
    layers = cross_attention_layers(denoiser(config))
    expected = [(f"{name}.transformer_blocks.0.attn2", width) for name, width in SD15_LAYERS]
    assert [(layer.name, layer.width) for layer in layers] == expected
    assert len(layers) == 16
    assert sum(layer.width for layer in layers) == 12_480
    for layer in layers:
        shape = (layer.width, config["cross_attention_dim"])
        assert layer.key_weight.shape == layer.value_weight.shape == shape


def test_stable_diffusion_xl() -> None:
    layers = cross_attention_layers(denoiser(SDXL))
    expected = [
        (f"{home}.transformer_blocks.{depth}.attn2", width) for home, depth, width in SDXL_LAYERS
    ]
    assert [(layer.name, layer.width) for layer in layers] == expected
    assert len(layers) == 70
    assert sum(layer.width for layer in layers) == 83_200


@pytest.mark.parametrize("config", [SD15, SD21, SDXL], ids=["SD1.5", "SD2.1", "SDXL"])
def test_a_denoising_step_takes_a_conditioning_of_these_widths(config: dict[str, Any]) -> None:
    unet = denoiser(config)
    layers = cross_attention_layers(unet)
    with torch.device("meta"):
        states = [torch.empty(3, 77, layer.width) for layer in layers]
        encodings = torch.empty(3, 77, config["cross_attention_dim"])
        added = {"text_embeds": torch.empty(3, 1280), "time_ids": torch.empty(3, 6)}
        with attach(unet):
            output = unet(
                torch.empty(3, 4, 32, 32),
                torch.empty(3),
                encodings,
                added_cond_kwargs=added if config is SDXL else None,
                cross_attention_kwargs={
                    "conditioning": Conditioning(tuple(states), tuple(states), encodings)
                },
            ).sample
    assert output.shape == (3, 4, 32, 32)


def test_adapter_sizes() -> None:
    one = [("text_encoder", 768)]
    two = [("text_encoder", 768), ("text_encoder_2", 1280)]
    local = adapter(SD15, one, "LOCAL")
    assert len(local.to_bytes("float16")) <= 31_000
    assert len(local.to_bytes("float32")) <= 61_000
    # The paper's 100 KB is o*_K, o*_V, i* and the word embedding in float32 (anchors, Sec. 2.3).
    own_keys = adapter(SD15, one, "TRAINED_K")
    counted = (
        own_keys.value_output,
        own_keys.key_output,
        own_keys.target_input,
        own_keys.embeddings["text_encoder"],
    )
    assert sum(tensor.numel() for tensor in counted if tensor is not None) * 4 == 105_984
    assert len(adapter(SD21, [("text_encoder", 1024)], "LOCAL").to_bytes("float16")) <= 33_000
    assert len(adapter(SDXL, two, "LOCAL").to_bytes("float16")) <= 185_000


def test_layers_that_compute_more_than_a_product_are_refused() -> None:
    small = {
        "block_out_channels": (32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
    }
    with pytest.raises(BaseModelUnsuitable, match="only_cross_attention"):
        cross_attention_layers(denoiser(small | {"only_cross_attention": True}))
    biased = _fresh(small)
    attention = cross_attention_layers(biased)[0].attention
    with torch.device("meta"):
        attention.to_k = torch.nn.Linear(16, 32, bias=True)
    with pytest.raises(BaseModelUnsuitable, match="a bias"):
        cross_attention_layers(biased)
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    with pytest.raises(BaseModelUnsuitable, match="no cross-attention"):
        cross_attention_layers(denoiser(small | plain | {"mid_block_type": None}))
