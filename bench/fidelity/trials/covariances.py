"""C over other positions than the shipped one's, from the very captions that it was made of."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from perfuse.attach import BaseModel, CovarianceAsset, Prompt, encode_tokens, tokenise
from perfuse.method import CovarianceAccumulator
from perfuse_toybox.captions import caption
from perfuse_toybox.world import training_picture

SEED = 77
"""Of the captions, as the build of the base draws them."""

_BATCH = 256


@cache
def with_covariance(base: BaseModel, counted: str, captions: int) -> BaseModel:
    """The base with C over `ALL` positions, or over words alone (`NO_END`).

    Args:
        base: Prepared; with `WORDS` it is given back as it is.
        counted: As `Learnt.counted`.
        captions: How many are read, of those behind the shipped C the first ones.
    """
    if counted == "WORDS":
        return base
    assert base.covariance is not None
    covariance = accumulated(base, counted, captions).finish()
    asset = CovarianceAsset(covariance, base.covariance.ridge, captions, counted, base.fingerprint)
    return replace(base, covariance=asset)


@torch.no_grad()
def accumulated(base: BaseModel, counted: str, captions: int) -> CovarianceAccumulator:
    """The sum of e eᵀ over the positions that count."""
    lot = random.Random(SEED)
    texts = [caption(training_picture(lot), lot) for _ in range(captions)]
    sums = CovarianceAccumulator(base.conditioning_width)
    for start in range(0, captions, _BATCH):
        prompts = [tokenise(base, Prompt.parse(text)) for text in texts[start : start + _BATCH]]
        encodings = encode_tokens(base, prompts).encodings
        ends = torch.tensor([prompt.end_of_text for prompt in prompts])
        sums.add(encodings[_counted(counted, ends, encodings.shape[1])])
    return sums


def _counted(counted: str, ends: Tensor, length: int) -> Tensor:
    places = torch.arange(length).expand(len(ends), -1)
    if counted == "ALL":
        return torch.ones_like(places, dtype=torch.bool)
    last = ends[:, None] - int(counted == "NO_END")
    return (places > 0) & (places <= last)
