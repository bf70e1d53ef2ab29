"""How the parts of the toybox base model become a diffusers directory."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from perfuse_toybox.denoiser import build_scheduler


def assemble(
    directory: Path,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
) -> None:
    """Write the parts as a Stable Diffusion pipeline with float16 weights."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.to(memory_format=torch.contiguous_format),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(directory, safe_serialization=True)
