"""Tiny base models with the real configurations' shape, written in diffusers layout.

Every one is a few tens of thousands of seeded, untrained parameters: large enough for every branch
that a real base takes (one or two encoders, epsilon or v, convolution or linear projections,
the two readings of the end-of-text id), small enough to run a denoising step in milliseconds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from perfuse.adapter import Adapter, AdapterMetadata, Encoder, Layer
from perfuse.attach import (
    BaseModel,
    CovarianceAsset,
    Prompt,
    encode_tokens,
    initial_value_outputs,
    locked_key_outputs,
    tokenise,
)
from perfuse.method import CovarianceAccumulator

WORDS = tuple(
    word
    for line in (
        "a an the photo of in on with and picture cat dog bear teddy chair hat sunglasses snow",
        "garden red blue striped wearing sitting next to small big wood beach night",
    )
    for word in line.split()
)
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order of GPT-2's table."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(shifted))]


def tiny_tokenizer(pad_token: str = END, words: tuple[str, ...] = WORDS) -> Any:
    """A CLIP tokenizer that knows `words` as single tokens and spells out everything else.

    Merges are tried in the words' order, so that an earlier word may break a later one apart;
    every word of `WORDS` comes out whole.
    """
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges: list[str] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = f"{pieces[0]} {pieces[1]}"
            pieces[:2] = [pieces[0] + pieces[1]]
            if merge not in merges:
                merges.append(merge)
                tokens.append(pieces[0])
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, BEGIN, END]))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(merge.split()) for merge in merges],
        pad_token=pad_token,
        model_max_length=77,
    )


def tiny_encoder(
    tokenizer: Any, width: int, *, projection: int | None = None, **config: Any
) -> Any:
    """A two-to-three-layer CLIP text encoder; with `projection`, the kind that SDXL pools from."""
    settings = CLIPTextConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "projection_dim": projection or width,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            # Large enough that words tell apart: an untrained encoder's default is nearly flat.
            "initializer_factor": 8.0,
            **config,
        }
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(settings)


def tiny_vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )


def tiny_unet(width: int, **config: Any) -> Any:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            **config,
        }
    )


NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def save_sd15(directory: Path) -> Path:
    """SD1.x: one encoder with the old end-of-text id, epsilon, PNDM, padding by end-of-text."""
    torch.manual_seed(15)
    tokenizer = tiny_tokenizer()
    StableDiffusionPipeline(
        tokenizer=tokenizer,
        # SD1.5's own config says 2 here; transformers then pools at the highest id.
        text_encoder=tiny_encoder(tokenizer, 32, eos_token_id=2),
        unet=tiny_unet(32),
        vae=tiny_vae(),
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(directory)
    return directory


def save_sd21(directory: Path) -> Path:
    """SD2.x: v prediction, linear projections, head counts per level, padding by "!"."""
    torch.manual_seed(21)
    tokenizer = tiny_tokenizer(pad_token="!")
    StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_encoder(tokenizer, 40, hidden_act="gelu"),
        unet=tiny_unet(
            40,
            use_linear_projection=True,
            attention_head_dim=(2, 4),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ),
        vae=tiny_vae(),
        scheduler=DDIMScheduler(**NOISE, prediction_type="v_prediction", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(directory)
    return directory


def save_sdxl(directory: Path) -> Path:
    """SDXL: two encoders side by side, the penultimate layer, a pooled text and size embedding."""
    torch.manual_seed(10)
    first, second = tiny_tokenizer(), tiny_tokenizer(pad_token="!")
    StableDiffusionXLPipeline(
        tokenizer=first,
        tokenizer_2=second,
        text_encoder=tiny_encoder(first, 24, eos_token_id=2),
        text_encoder_2=tiny_encoder(second, 32, projection=20, hidden_act="gelu"),
        unet=tiny_unet(
            56,
            use_linear_projection=True,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 20,
        ),
        vae=tiny_vae(),
        scheduler=EulerDiscreteScheduler(**NOISE),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_pretrained(directory)
    return directory


def words_covariance(base: Any, seed: int = 0) -> CovarianceAsset:
    """A covariance over the encodings of random word sequences, for bases that are not prepared."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(WORDS), (40, 12), generator=generator).tolist()
    texts = [" ".join(WORDS[pick] for pick in row) for row in picks]
    encoding = encode_tokens(base, [tokenise(base, Prompt.parse(text)) for text in texts])
    sums = CovarianceAccumulator(base.conditioning_width)
    sums.add(encoding.encodings[:, 1:14])
    return CovarianceAsset(sums.finish(), 1e-3, 40, "words", base.fingerprint)


def load_prepared(directory: Path, **arguments: Any) -> BaseModel:
    """A base model with a covariance in memory; the directory stays as it is."""
    base = BaseModel.load(directory, **arguments)
    return replace(base, covariance=words_covariance(base))


def random_adapter(base: BaseModel, seed: int, super_category: str, **metadata: Any) -> Adapter:
    """An adapter as training could have left it: on near `super_category`, o* of natural size."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor, scale: float) -> torch.Tensor:
        spread = scale * float(like.std())
        return spread * torch.randn(like.shape, generator=generator).to(like)

    prompt = Prompt.parse("a photo of <it>", ["it"]).with_super_categories({"it": super_category})
    encoding = encode_tokens(base, [tokenise(base, prompt)])
    at_super = encoding.at_slots("it")[0]
    values = initial_value_outputs(base, at_super)
    token = encoding.tokens[0].slots[0].position
    embeddings = {}
    for index, encoder in enumerate(base.encoders):
        table = encoder.text_model.embeddings.token_embedding.weight
        word = table[encoding.tokens[0].ids[index][token]]
        embeddings[encoder.name] = word + noise(word, 0.5)
    trained = metadata.get("key_lock") == "TRAINED_K"
    return Adapter(
        metadata=AdapterMetadata(
            **{
                "base_model": base.fingerprint,
                "architecture": base.architecture,
                "layers": tuple(Layer(layer.name, layer.width) for layer in base.layers),
                "encoders": tuple(Encoder(entry.name, entry.width) for entry in base.encoders),
                "conditioning_width": base.conditioning_width,
                "super_category": super_category,
                "placeholder": "it",
                "key_lock": "LOCAL",
                "bias": 0.7,
                "temperature": 0.15,
                **metadata,
            }
        ),
        target_input=at_super + noise(at_super, 0.3),
        super_category_encoding=at_super,
        embeddings=embeddings,
        value_output=values + noise(values, 1.0),
        key_output=locked_key_outputs(base, at_super) + noise(values, 0.5) if trained else None,
    )
