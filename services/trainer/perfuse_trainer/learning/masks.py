"""Soft masks over a picture's subject, at the size of its latents (paper p. 9).

The paper weighs its loss by a mask from a segmentation model that is asked for the super-category.
Perfuse takes masks from there, from the pictures' own files, or from the base model's attention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perfuse.attach import BaseModel
from perfuse.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PictureRefused,
    WrongShape,
)
from perfuse.method import soft_mask
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.subject_attention import subject_attention
from perfuse_trainer.learning.templates import TEMPLATES
from perfuse_trainer.pictures.images import TrainingPicture, fit
from perfuse_trainer.pictures.intake import MASK_SUFFIX

# Attention that varies by less than this share of its maximum is rounding, not sight.
FLAT = 1e-4


@torch.no_grad()
def masks_for(
    base: BaseModel,
    pictures: Sequence[TrainingPicture],
    latents: Tensor,
    super_category: str,
    source: MaskSource,
    *,
    clipseg: Path | None = None,
) -> Tensor | None:
    """Soft masks for the loss, each with a maximum of 1 (`method.soft_mask`).

    Args:
        base: the base model.
        pictures: N training pictures.
        latents: theirs, scaled, [N, C, h, w] with h = w, as `images.fit` frames them.
        super_category: what the subject is a kind of.
        source: where the masks come from.
        clipseg: a local directory with a CLIPSeg checkpoint and its processor.

    Returns:
        [N, 1, h, w] float32 on the latents' device, or None for `MaskSource.NONE`.

    Raises:
        PictureRefused: UPLOADED, and a picture has no mask or none within its central square; or
            CROSS_ATTENTION, and the base looks everywhere alike.
        InvalidArgument: CLIPSEG without a directory.
        NotFound: CLIPSEG, and the directory or its config.json is not there.
        FailedPrecondition: CLIPSEG, and what is there is no whole CLIPSeg checkpoint.
        WrongShape: latents that do not belong to the pictures.
    """
    if latents.dim() != 4 or latents.shape[0] != len(pictures):
        raise WrongShape(
            f"latents of shape {list(latents.shape)} for {len(pictures)} pictures; they must be "
            f"[{len(pictures)}, C, h, w]"
        )
    size = (int(latents.shape[-2]), int(latents.shape[-1]))
    if size[0] != size[1]:
        raise WrongShape(f"latents are {size[0]} × {size[1]}; pictures are fitted to squares")
    side = size[0] * int(base.pipeline.vae_scale_factor)
    match MaskSource(source):
        case MaskSource.NONE:
            return None
        case MaskSource.UPLOADED:
            found = torch.stack([_uploaded(picture, side) for picture in pictures])
        case MaskSource.CLIPSEG:
            found = _segmented(pictures, side, super_category, clipseg, latents.device)
        case MaskSource.CROSS_ATTENTION:
            found = _attended(base, pictures, latents, super_category)
    return soft_mask(found, size).to(latents.device, torch.float32)


def _uploaded(picture: TrainingPicture, side: int) -> Tensor:
    """The mask that came with a picture [1, side, side]."""
    _, mask = fit(picture, side)
    if mask is None:
        raise PictureRefused(
            f"{picture.name} has neither a mask nor transparency; masks were to come with the "
            f"pictures: put NAME{MASK_SUFFIX} beside it, or choose another mask source"
        )
    if not mask.any():
        raise PictureRefused(
            f"the mask of {picture.name} marks nothing within the central square, which is all "
            "that training sees: crop the picture around its subject"
        )
    return mask


def _segmented(
    pictures: Sequence[TrainingPicture],
    side: int,
    super_category: str,
    checkpoint: Path | None,
    device: torch.device,
) -> Tensor:
    """CLIPSeg's answers to the neutral templates, averaged: [N, 1, h', w'] at its own size."""
    processor, model = _load_clipseg(checkpoint)
    model.to(device)
    prompts = [template.format(super_category) for template in TEMPLATES]
    text = processor.tokenizer(prompts, padding=True, return_tensors="pt").to(device)
    asked = model.get_conditional_embeddings(len(prompts), text.input_ids, text.attention_mask)
    found = []
    for picture in pictures:
        # The same square that training sees, as a picture again.
        pixels = ((fit(picture, side)[0] + 1) * 127.5).round().to(torch.uint8)
        seen = processor.image_processor([pixels], return_tensors="pt").pixel_values.to(device)
        logits = model(
            pixel_values=seen.expand(len(prompts), -1, -1, -1), conditional_embeddings=asked
        ).logits
        found.append(logits.sigmoid().mean(dim=0, keepdim=True))
    return torch.stack(found)


def _load_clipseg(checkpoint: Path | None) -> tuple[Any, Any]:
    """Processor and model from a local directory; nothing is fetched, nothing unpickled."""
    if checkpoint is None:
        raise InvalidArgument(
            "mask source CLIPSEG needs a checkpoint; give the local directory of one, such as "
            "CIDAS/clipseg-rd64-refined, or choose CROSS_ATTENTION, which needs none"
        )
    try:
        kind = json.loads((checkpoint / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise NotFound(
            f"{checkpoint} holds no readable config.json; give a directory with a CLIPSeg "
            "checkpoint in safetensors and its processor"
        ) from error
    if kind != "clipseg":
        # transformers would load it all the same and fill what is missing with random numbers.
        raise FailedPrecondition(
            f"{checkpoint} holds a checkpoint of type {kind!r}; it must be 'clipseg': give another "
            "directory, or choose CROSS_ATTENTION"
        )
    # Imported late: it takes seconds, and most runs never ask.
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    try:
        processor = CLIPSegProcessor.from_pretrained(checkpoint, local_files_only=True)
        model, report = CLIPSegForImageSegmentation.from_pretrained(
            checkpoint, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise FailedPrecondition(
            f"{checkpoint} cannot be loaded as a CLIPSeg checkpoint ({error}); it must hold the "
            "model in safetensors and its processor: fetch it again"
        ) from error
    if report["missing_keys"]:
        raise FailedPrecondition(
            f"{checkpoint} lacks {len(report['missing_keys'])} weights of CLIPSeg, such as "
            f"{min(report['missing_keys'])}; it must hold all of them: fetch it again"
        )
    return processor, model.requires_grad_(False).eval()


def _attended(
    base: BaseModel, pictures: Sequence[TrainingPicture], latents: Tensor, super_category: str
) -> Tensor:
    """The base's attention [N, 1, h, w], stretched so that each picture reaches from 0 to 1."""
    maps = subject_attention(base, latents, super_category)
    lowest, highest = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    flat = (highest - lowest <= FLAT * highest).flatten().tolist()
    for picture, nothing in zip(pictures, flat, strict=True):
        if nothing:
            raise PictureRefused(
                f"the base model looks for {super_category!r} everywhere alike in {picture.name}, "
                "so that no mask can be made: choose another mask source"
            )
    return (maps - lowest) / (highest - lowest)
