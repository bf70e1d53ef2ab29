"""How much of the denoiser's attention falls on each place of a prompt, and from where."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.fidelity.companions import place_of
from bench.fidelity.curriculum import Asked, prompts
from bench.fidelity.lab import Lab
from bench.fidelity.rendering import Rendering, plans
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    Prompt,
    attach,
    denoise,
    stack,
    tokenise,
)
from perfuse_toybox.drawing import paint
from perfuse_toybox.world import Picture
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.subject_attention import listening
from perfuse_trainer.pictures.images import TrainingPicture

TIMESTEPS = (100, 300, 500, 700, 900)
LOCKS = ("base alone", "LOCAL", "GLOBAL", "TRAINED_K")


def attention(lab: Lab, bias: float) -> dict[str, Any]:
    """Lock → alone or in company → place → its share, all words of a place together.

    `within the figure` and `elsewhere` are the shares of the concept's word as the places of the
    picture give it where the concept's figure is, and where it is not. The mean over concepts,
    prompts, layers, heads and noise levels, in the painter's own pictures of the prompts.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for concept in lab.concepts:
        asked = prompts(concept, lab.form.prompts)
        for lock in LOCKS:
            lesson = lab.lesson(key_lock="TRAINED_K" if lock == "TRAINED_K" else "LOCAL")
            learned = {concept.name: lab.learned(concept, lesson)[0]}
            alone = lock == "base alone"
            rendering = Rendering(key_lock="LOCAL" if alone else lock, bias=bias)
            made = plans(lab.base, None if alone else lesson.method, learned, asked, rendering)
            for one, planned in zip(asked, made, strict=True):
                company = "alone" if _is_alone(one) else "in company"
                rows = found.setdefault(lock, {}).setdefault(company, {})
                for place, share in _read(lab.base, one, planned).items():
                    rows.setdefault(place, []).append(share)
    return {
        lock: {
            company: {place: round(float(np.mean(shares)), 4) for place, shares in rows.items()}
            for company, rows in companies.items()
        }
        for lock, companies in found.items()
    }


@torch.no_grad()
def shares(
    base: BaseModel, planned: ConditioningPlan, latents: Tensor, there: Tensor
) -> list[Tensor]:
    """The attention that falls on some positions of a prompt, for each layer `[h, w]`, 0 to 1.

    Args:
        base: The base model.
        planned: Of the prompt.
        latents: Of a picture, `[1, c, h, w]`.
        there: 1 at the positions, else 0, `[M]`.
    """
    alphas = base.pipeline.scheduler.alphas_cumprod
    timesteps = torch.tensor(TIMESTEPS)
    scale = alphas[timesteps][:, None, None, None]
    lot = torch.Generator().manual_seed(0)
    noise = torch.randn((len(TIMESTEPS), *latents.shape[1:]), generator=lot)
    noisy = scale.sqrt() * latents + (1 - scale).sqrt() * noise
    rows = stack([planned] * len(TIMESTEPS))
    with attach(base.unet), listening(base, rows, there.expand(len(TIMESTEPS), -1)) as heard:
        denoise(base, noisy, timesteps, rows)
    found = []
    for share in heard:
        side = math.isqrt(share.shape[1])
        found.append(share.mean(0).view(side, side))
    return found


def figure_mask(picture: Picture, figure: str) -> Tensor:
    """Where a figure is seen in a picture, `[1, 1, h, w]` of 0 and 1: what changes without it."""
    own, without = (
        torch.from_numpy(paint(one)) for one in (picture, replace(picture, **{figure: None}))
    )
    return (own != without).any(-1)[None, None].float()


def _read(base: BaseModel, asked: Asked, planned: ConditioningPlan) -> dict[str, float]:
    pixels = torch.from_numpy(paint(asked.picture)).permute(2, 0, 1).contiguous()
    latents = PictureLatents.encode(base, [TrainingPicture("true.png", pixels, None)]).plain
    ((name, figure),) = asked.figures.items()
    slot = tokenise(base, Prompt.parse(asked.prompt, [name])).slots[0].position
    end = planned.chunks[0].end_of_text
    places = [place_of(position, slot, end) for position in range(len(planned.encodings))]
    found, mask = {}, figure_mask(asked.picture, figure)
    for place in dict.fromkeys(places):
        there = torch.tensor([1.0 * (one == place) for one in places])
        layers = shares(base, planned, latents, there)
        found[place] = _mean([share.mean() for share in layers])
        if place == "concept":
            masks = [functional.adaptive_avg_pool2d(mask, share.shape)[0, 0] for share in layers]
            sides = {"within the figure": masks, "elsewhere": [1 - one for one in masks]}
            for side, weights in sides.items():
                found[side] = _mean(
                    [(s * w).sum() / w.sum() for s, w in zip(layers, weights, strict=True)]
                )
    return found


def _mean(numbers: list[Tensor]) -> float:
    return float(torch.stack(numbers).mean())


def _is_alone(asked: Asked) -> bool:
    figures = (asked.picture.subject, asked.picture.worn, asked.picture.seat)
    return sum(figure is not None for figure in figures) == 1
