"""What the Renderer's benchmark renders on: bases, concepts for them, and the peers' LoRA files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from perfuse.adapter import Adapter, AdapterMetadata, Encoder, Layer
from perfuse.attach import (
    BaseModel,
    CovarianceAsset,
    Prompt,
    TextEncoder,
    cross_attention_layers,
    encode_tokens,
    initial_value_outputs,
    tokenise,
)
from perfuse.client.registry import FoundVersion
from perfuse.errors import NotFound
from perfuse.method import Covariance
from perfuse.names import VersionName
from perfuse_toybox.base import DIRECTORY

SUPER_CATEGORY = "cat"
LORA_RANK = 4
_PARAMETERS = {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
"""Of Stable Diffusion 1.5, by which its configuration is known to be the real one."""


def toybox() -> BaseModel:
    """The shipped base, trained and prepared."""
    return BaseModel.load(DIRECTORY)


def stable_diffusion_15() -> BaseModel:
    """Stable Diffusion 1.5's configuration with random weights in fp32, in memory alone.

    Two things are not its own, and cost the same: the vocabulary of the tokenizer, which is the
    toybox's with 77 positions, and the covariance, which is the identity.

    Raises:
        RuntimeError: the configuration has not the real one's number of parameters.
    """
    torch.manual_seed(15)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            projection_dim=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            hidden_act="quick_gelu",
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    parts = {"unet": unet, "text_encoder": text_encoder, "vae": vae}
    for name, module in parts.items():
        found = sum(parameter.numel() for parameter in module.parameters())
        if found != _PARAMETERS[name]:
            raise RuntimeError(f"{name} has {found} parameters, and SD1.5 {_PARAMETERS[name]}")
        module.requires_grad_(False).eval()
    tokenizer = CLIPTokenizer.from_pretrained(DIRECTORY / "tokenizer", model_max_length=77)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    fingerprint = "sha256:" + "15" * 32
    return BaseModel(
        directory=Path("random-weights"),
        pipeline=_pipeline(**parts, tokenizer=tokenizer, scheduler=scheduler),
        fingerprint=fingerprint,
        architecture="sd-768",
        layers=cross_attention_layers(unet),
        encoders=(TextEncoder("text_encoder", tokenizer, text_encoder),),
        prediction_type="epsilon",
        covariance=CovarianceAsset(
            Covariance(torch.eye(768, dtype=torch.float64), 100_000), 1e-4, 1, "words", fingerprint
        ),
    )


def stock_pipeline(base: BaseModel) -> Any:
    """Stock diffusers over the same parts, but for a denoiser of its own that LoRAs may change."""
    parts = dict(base.pipeline.components)
    parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config)
    pipeline = _pipeline(**(parts | {"unet": copy.deepcopy(base.unet)}))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _pipeline(**parts: Any) -> Any:
    missing = {"safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(**(parts | missing), requires_safety_checker=False)


@torch.no_grad()
def concept(base: BaseModel, seed: int) -> Adapter:
    """An adapter of the size and shape that training gives; its direction is random."""
    generator = torch.Generator().manual_seed(seed)

    def near(tensor: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return tensor + scale * tensor.std() * torch.randn(tensor.shape, generator=generator)

    tokens = tokenise(base, Prompt.parse(f"a photo of a {SUPER_CATEGORY}"))
    at_super = encode_tokens(base, [tokens]).encodings[0, tokens.end_of_text - 1]
    words = {
        encoder.name: encoder.text_model.embeddings.token_embedding.weight[
            tokens.ids[index][tokens.end_of_text - 1]
        ]
        for index, encoder in enumerate(base.encoders)
    }
    return Adapter(
        metadata=AdapterMetadata(
            base_model=base.fingerprint,
            architecture=base.architecture,
            layers=tuple(Layer(layer.name, layer.width) for layer in base.layers),
            encoders=tuple(Encoder(entry.name, entry.width) for entry in base.encoders),
            conditioning_width=base.conditioning_width,
            super_category=SUPER_CATEGORY,
            placeholder="it",
            key_lock="LOCAL",
            bias=0.7,
            temperature=0.15,
        ),
        target_input=near(at_super),
        super_category_encoding=at_super,
        embeddings={name: near(word, 0.5) for name, word in words.items()},
        value_output=near(initial_value_outputs(base, at_super)),
        key_output=None,
    )


def write_lora(base: BaseModel, folder: Path, seed: int) -> Path:
    """A LoRA on every K and V of the cross-attention layers, as diffusers writes one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in base.layers:
        for projection in ("to_k", "to_v"):
            outputs, inputs = layer.value_weight.shape
            home = f"unet.{layer.name}.{projection}"
            weights[f"{home}.lora_A.weight"] = torch.randn(LORA_RANK, inputs, generator=generator)
            weights[f"{home}.lora_B.weight"] = 0.01 * torch.randn(
                outputs, LORA_RANK, generator=generator
            )
    path = folder / f"lora-{seed}.safetensors"
    save_file(weights, path)
    return path


class Shelf:
    """Adapters at hand in the Registry's place, for what is measured without one: `<c0>`, ..."""

    def __init__(self, base: BaseModel, adapters: Sequence[Adapter]) -> None:
        self._base = base
        self._adapters = adapters

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        """See `pool.Source`."""
        del authorization
        adapter = self._adapters[self._index(name)]
        return FoundVersion(
            name.parent.version(1),
            adapter.digest,
            "baseModels/bench",
            self._base.fingerprint,
            SUPER_CATEGORY,
            adapter.metadata.bias,
            adapter.metadata.temperature,
        )

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        """See `pool.Source`."""
        found = await self.version(name, authorization)
        return found, self._adapters[self._index(name)].to_bytes()

    def _index(self, name: VersionName) -> int:
        if not name.concept[1:].isdigit() or int(name.concept[1:]) >= len(self._adapters):
            raise NotFound(f"{name} is not on the shelf")
        return int(name.concept[1:])
