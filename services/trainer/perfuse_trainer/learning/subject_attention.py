"""Where in a picture the base model sees a word: its own cross-attention, read from outside.

A picture's latents are noised to several levels and handed to the denoiser with the neutral
prompts; at every cross-attention layer, what each position asks is compared with the keys of the
prompt, as the layer itself does. The share that goes to the super-category, averaged over heads,
layers, prompts and levels, is a map of the subject (compare Tang et al. 2022, "What the DAAM").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from perfuse.attach import (
    BaseModel,
    Conditioning,
    CrossAttentionLayer,
    Prompt,
    Tokens,
    attach,
    denoise,
    encode_tokens,
    is_attached,
    plain_projections,
    tokenise,
)
from perfuse_trainer.learning.templates import TEMPLATES

# Noise levels as shares of the schedule. Below, attention follows texture; above, there is no
# picture left to look at.
LEVELS = (0.1, 0.6)
SEED = 0


@torch.no_grad()
def subject_attention(base: BaseModel, latents: Tensor, super_category: str) -> Tensor:
    """Attention to the super-category over the positions of each picture's latents.

    One pass of the denoiser per picture: a row per template, each at a noise level of its own,
    with the same seeded noise for every picture, so that the result depends on neither the order
    of pictures nor any other draw. The denoiser is as before afterwards; meanwhile no other
    thread may use it.

    Args:
        base: the base model, attached or not.
        latents: scaled, [N, C, h, w] with h = w.
        super_category: one word or several; the shares of its sub-tokens are added.

    Returns:
        [N, 1, h, w] float32 in 0 to 1, not normalised.

    Raises:
        PromptRefused: the super-category is no word, or too long.
    """
    prompts = [_prompt(base, template, super_category) for template in TEMPLATES]
    words = torch.zeros(len(prompts), base.positions, device=base.device)
    for row, tokens in enumerate(prompts):
        slot = tokens.slots[0]
        words[row, slot.position - slot.sub_tokens + 1 : slot.position + 1] = 1
    encoding = encode_tokens(base, prompts)
    conditioning = Conditioning.of(
        plain_projections(base, encoding.encodings), encoding.encodings, encoding.pooled
    )
    timesteps, signal, spread = _levels(base, len(prompts))
    noise = torch.randn(
        (len(prompts), *latents.shape[1:]), generator=torch.Generator("cpu").manual_seed(SEED)
    ).to(base.device)
    maps = []
    with nullcontext() if is_attached(base.unet) else attach(base.unet):
        for clean in latents.to(base.device, torch.float32):
            noised = (signal * clean + spread * noise).to(base.dtype)
            with listening(base, conditioning, words) as heard:
                denoise(base, noised, timesteps, conditioning)
            maps.append(_average(heard, (clean.shape[-2], clean.shape[-1])))
    return torch.stack(maps)


def attention_share(
    layer: CrossAttentionLayer, hidden: Tensor, keys: Tensor, words: Tensor
) -> Tensor:
    """The share of a layer's attention that goes to some words, averaged over heads.

    Args:
        layer: the layer.
        hidden: what asks, [B, P, c].
        keys: of the prompts, [B, M, d_l].
        words: 1 at the positions of the words in question, else 0, [B, M].

    Returns:
        [B, P] in at least float32.
    """
    attention = layer.attention
    heads = (keys.shape[0], -1, attention.heads, keys.shape[2] // attention.heads)
    query = attention.to_q(hidden).view(heads).transpose(1, 2)
    scores = query @ keys.view(heads).transpose(1, 2).transpose(2, 3) * attention.scale
    if scores.dtype != torch.float64:
        scores = scores.float()
    shares: Tensor = torch.einsum("bhpm,bm->bhp", scores.softmax(dim=-1), words.to(scores.dtype))
    return shares.mean(dim=1)


def _prompt(base: BaseModel, template: str, super_category: str) -> Tokens:
    prompt = Prompt.parse(template.format("<it>"), ["it"])
    return tokenise(base, prompt.with_super_categories({"it": super_category}))


def _levels(base: BaseModel, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps [B], √ᾱ and √(1 − ᾱ) [B, 1, 1, 1] in float32, evenly over `LEVELS`."""
    alphas = base.pipeline.scheduler.alphas_cumprod.to(base.device, torch.float32)
    timesteps = torch.linspace(*LEVELS, count, device=base.device).mul(len(alphas) - 1).long()
    alpha = alphas[timesteps].reshape(-1, 1, 1, 1)
    return timesteps, alpha.sqrt(), (1 - alpha).sqrt()


@contextmanager
def listening(base: BaseModel, conditioning: Conditioning, words: Tensor) -> Iterator[list[Tensor]]:
    """Collect every cross-attention layer's share [B, P]; hooks are gone at the end."""
    heard: list[Tensor] = []

    def listener(index: int, layer: CrossAttentionLayer) -> Any:
        def hear(_: Any, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            hidden = positional[0] if positional else named["hidden_states"]
            heard.append(attention_share(layer, hidden, conditioning.keys[index], words))

        return hear

    hooks = [
        layer.attention.register_forward_pre_hook(listener(index, layer), with_kwargs=True)
        for index, layer in enumerate(base.layers)
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _average(heard: list[Tensor], size: tuple[int, int]) -> Tensor:
    """One map [1, h, w] from all layers, whatever their resolution."""
    total = torch.zeros(1, *size, device=heard[0].device)
    for shares in heard:
        side = math.isqrt(shares.shape[1])
        share = shares.float().mean(dim=0).reshape(1, 1, side, side)
        total += functional.interpolate(share, size=size, mode="bilinear")[0]
    return total / len(heard)
