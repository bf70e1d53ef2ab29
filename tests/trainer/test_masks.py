"""Masks at the latents' size, from each source, on every kind of base model.

The base's own attention is held to a second reading of it: diffusers' `get_attention_scores`,
called from a processor that records, where the code under test listens through hooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bases import load_prepared, tiny_tokenizer
from torch.nn import functional
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPSegProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from perfuse.attach import BaseModel, attach, denoise, is_attached, plan, stack
from perfuse.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PictureRefused,
    PromptRefused,
    WrongShape,
)
from perfuse.method import soft_mask
from perfuse_trainer.learning import subject_attention as reading
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.masks import masks_for
from perfuse_trainer.learning.subject_attention import subject_attention
from perfuse_trainer.learning.templates import TEMPLATES
from perfuse_trainer.pictures.images import TrainingPicture, fit

SIDE = 8


@pytest.fixture(params=["sd15", "sd21", "sdxl"])
def base(request: pytest.FixtureRequest) -> BaseModel:
    found: BaseModel = request.getfixturevalue(f"tiny_{request.param}")
    return found


def picture(seed: int, mask: torch.Tensor | None = None, width: int = 20) -> TrainingPicture:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (3, 16, width), generator=draw, dtype=torch.uint8)
    return TrainingPicture(f"{seed}.png", pixels, mask)


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_no_masks(tiny_sd15: BaseModel) -> None:
    assert masks_for(tiny_sd15, [picture(0)], latents(1), "cat", MaskSource.NONE) is None


def test_latents_must_be_the_pictures(tiny_sd15: BaseModel) -> None:
    for wrong in (latents(2), latents(1)[0], latents(1)[..., :4]):
        with pytest.raises(WrongShape, match="latents"):
            masks_for(tiny_sd15, [picture(0)], wrong, "cat", MaskSource.NONE)


def test_uploaded_masks_are_framed_like_their_pictures(base: BaseModel) -> None:
    marks = torch.zeros(1, 16, 20, dtype=torch.uint8)
    marks[:, :8, 2:10] = 200  # the upper left quarter of the central square, which starts at 2
    marks[:, :, 19] = 255  # outside
    found = masks_for(
        base,
        [picture(0, marks), picture(1, marks.flip(1))],
        latents(2),
        "cat",
        MaskSource.UPLOADED,
    )
    assert found is not None
    assert found.dtype == torch.float32
    expected = torch.zeros(2, 1, SIDE, SIDE)
    expected[0, :, :4, :4] = 1
    expected[1, :, 4:, :4] = 1
    torch.testing.assert_close(found, expected)


def test_uploaded_masks_must_be_there_and_in_sight(tiny_sd15: BaseModel) -> None:
    outside = torch.zeros(1, 16, 20, dtype=torch.uint8)
    outside[:, :, 19] = 255
    for wrong, words in (
        (None, r"1\.png has neither a mask nor transparency"),
        (outside, r"mask of 1\.png marks nothing within the central square"),
    ):
        pictures = [picture(0, torch.full((1, 16, 20), 9, dtype=torch.uint8)), picture(1, wrong)]
        with pytest.raises(PictureRefused, match=words):
            masks_for(tiny_sd15, pictures, latents(2), "cat", MaskSource.UPLOADED)


@pytest.fixture(scope="module")
def clipseg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the real layout, a few thousand random parameters."""
    directory = tmp_path_factory.mktemp("clipseg")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(5)
    config = CLIPSegConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_factor": 8.0,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "initializer_factor": 8.0,
        },
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(directory)
    resizes = ViTImageProcessorPil(size={"height": 32, "width": 32})
    CLIPSegProcessor(resizes, tokenizer).save_pretrained(directory)
    return directory


def test_clipseg_is_asked_each_template_and_averaged(tiny_sd15: BaseModel, clipseg: Path) -> None:
    pictures = [picture(0), picture(1)]
    found = masks_for(tiny_sd15, pictures, latents(2), "cat", MaskSource.CLIPSEG, clipseg=clipseg)
    processor = CLIPSegProcessor.from_pretrained(clipseg)
    model = CLIPSegForImageSegmentation.from_pretrained(clipseg).eval()
    answers = []
    for entry in pictures:
        # fit at 16 pixels is the central square, untouched.
        square = entry.pixels[:, :, 2:18]
        inputs = processor(
            text=[template.format("cat") for template in TEMPLATES],
            images=[square] * len(TEMPLATES),
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            answers.append(model(**inputs).logits.sigmoid().mean(dim=0))
    expected = torch.stack(answers)[:, None]
    assert float(expected.std()) > 1e-3
    assert found is not None
    torch.testing.assert_close(found, soft_mask(expected, (SIDE, SIDE)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_clipseg_must_be_a_whole_local_checkpoint(
    tiny_sd15: BaseModel, tiny_sd15_dir: Path, clipseg: Path, tmp_path: Path
) -> None:
    def ask(directory: Path | None) -> None:
        masks_for(tiny_sd15, [picture(0)], latents(1), "cat", MaskSource.CLIPSEG, clipseg=directory)

    with pytest.raises(InvalidArgument, match="needs a checkpoint"):
        ask(None)
    with pytest.raises(NotFound, match="no readable config"):
        ask(tmp_path / "absent")
    with pytest.raises(FailedPrecondition, match="must be 'clipseg'"):
        ask(tiny_sd15_dir / "text_encoder")
    for path in clipseg.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FailedPrecondition, match="cannot be loaded"):
        ask(tmp_path)
    whole = CLIPSegForImageSegmentation.from_pretrained(clipseg)
    weights = whole.state_dict()
    lost = next(name for name in weights if name.startswith("decoder"))
    whole.save_pretrained(
        tmp_path, state_dict={name: value for name, value in weights.items() if name != lost}
    )
    (tmp_path / "config.json").write_bytes((clipseg / "config.json").read_bytes())
    with pytest.raises(FailedPrecondition, match=f"lacks 1 weights of CLIPSeg, such as {lost}"):
        ask(tmp_path)


class Recorder:
    """A processor that also keeps diffusers' own attention probabilities [B, heads, P, M]."""

    def __init__(self, stock: Any, kept: list[torch.Tensor]) -> None:
        self.stock, self.kept = stock, kept

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        scores = attn.get_attention_scores(query, key)
        self.kept.append(scores.unflatten(0, (-1, attn.heads)))
        output: torch.Tensor = self.stock(attn, hidden_states, encoder_hidden_states)
        return output


@torch.no_grad()
def second_reading(base: BaseModel, clean: torch.Tensor, word: str) -> torch.Tensor:
    """The map of one picture [1, h, w], one prompt after the other, through stock attention."""
    noise = torch.randn(
        len(TEMPLATES), *clean.shape, generator=torch.Generator().manual_seed(reading.SEED)
    )
    alphas = base.pipeline.scheduler.alphas_cumprod
    first, last = reading.LEVELS
    total, count = torch.zeros(1, *clean.shape[1:]), 0
    for row, template in enumerate(TEMPLATES):
        before, after = template.split("{}")
        encoder = base.encoders[0]
        start = 1 + len(encoder.tokenizer(before, add_special_tokens=False).input_ids)
        stop = start + len(encoder.tokenizer(word, add_special_tokens=False).input_ids)
        share = first + (last - first) * row / (len(TEMPLATES) - 1)
        time = int(share * (len(alphas) - 1) + 1e-4)
        noised = alphas[time].sqrt() * clean + (1 - alphas[time]).sqrt() * noise[row]
        conditioning = plan(base, before + word + after).conditioning
        added = None
        if base.pooled:
            pixels = clean.shape[-1] * base.pipeline.vae_scale_factor
            ids = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], dtype=torch.float32)
            added = {"text_embeds": conditioning.pooled, "time_ids": ids}
        kept: list[torch.Tensor] = []
        stock = [layer.attention.processor for layer in base.layers]
        for layer, processor in zip(base.layers, stock, strict=True):
            layer.attention.processor = Recorder(processor, kept)
        base.unet(
            noised[None],
            time,
            encoder_hidden_states=conditioning.encodings,
            added_cond_kwargs=added,
        )
        for layer, processor in zip(base.layers, stock, strict=True):
            layer.attention.processor = processor
        assert len(kept) == len(base.layers)
        for probabilities in kept:
            on = probabilities[0, :, :, start:stop].sum(dim=-1).mean(dim=0)
            side = round(on.numel() ** 0.5)
            total += functional.interpolate(
                on.reshape(1, 1, side, side), size=clean.shape[1:], mode="bilinear"
            )[0]
            count += 1
    return total / count


# "zebra" is not a word of the tiny tokenizer, which spells it out.
@pytest.mark.parametrize("word", ["cat", "zebra"])
def test_attention_equals_a_second_reading_of_it(base: BaseModel, word: str) -> None:
    clean = latents(2)
    found = subject_attention(base, clean, word)
    expected = torch.stack([second_reading(base, one, word) for one in clean])
    assert found.shape == (2, 1, SIDE, SIDE)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found[0], found[1], rtol=1e-3, atol=0)


def test_attention_masks_reach_from_zero_to_one_in_any_order(base: BaseModel) -> None:
    pictures, clean = [picture(0), picture(1), picture(2)], latents(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = masks_for(base, pictures, clean, "cat", MaskSource.CROSS_ATTENTION)
    assert torch.equal(torch.get_rng_state(), before)
    assert found is not None
    assert found.shape == (3, 1, SIDE, SIDE)
    assert found.amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]
    assert found.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    turned = masks_for(base, pictures[::-1], clean.flip(0), "cat", MaskSource.CROSS_ATTENTION)
    assert turned is not None
    assert torch.equal(turned.flip(0), found)


@pytest.mark.parametrize("attached", [False, True])
def test_the_denoiser_is_left_as_it_was(base: BaseModel, attached: bool) -> None:
    unet = base.unet
    attachment = attach(unet) if attached else None
    try:
        before = [(module, getattr(module, "processor", None)) for module in unet.modules()]
        clean = latents(1)
        subject_attention(base, clean, "cat")
        with pytest.raises(RuntimeError):
            subject_attention(base, clean[:, :3], "cat")  # fails in the middle of a pass
        with pytest.raises(PromptRefused):
            subject_attention(base, clean, "cat " * 80)
        assert is_attached(unet) == attached
        for module, processor in before:
            assert getattr(module, "processor", None) is processor
            assert not module._forward_pre_hooks
    finally:
        if attachment is not None:
            attachment.detach()


def test_the_denoiser_computes_what_it_did(base: BaseModel) -> None:
    batch = stack([plan(base, "a photo of a cat")])
    with attach(base.unet), torch.no_grad():
        before = denoise(base, latents(1), torch.tensor([7]), batch)
        subject_attention(base, latents(1), "cat")
        assert torch.equal(denoise(base, latents(1), torch.tensor([7]), batch), before)


def test_a_base_that_looks_everywhere_alike_gives_no_mask(tiny_sd15_dir: Path) -> None:
    blind = load_prepared(tiny_sd15_dir)
    for layer in blind.layers:
        layer.attention.to_q.weight.zero_()
    with pytest.raises(PictureRefused, match=r"'cat' everywhere alike in 0\.png"):
        masks_for(blind, [picture(0)], latents(1), "cat", MaskSource.CROSS_ATTENTION)


def test_pictures_at_the_base_s_size_are_not_resampled() -> None:
    """What the CLIPSeg reference above rests on."""
    entry = picture(0)
    pixels, _ = fit(entry, 16)
    assert torch.equal(((pixels + 1) * 127.5).round().to(torch.uint8), entry.pixels[:, :, 2:18])
