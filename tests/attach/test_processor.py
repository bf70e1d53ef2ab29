"""Attention over a conditioning: exact where it should change nothing, and blind to neighbours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import random_adapter
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional

from perfuse.attach import (
    BaseModel,
    Conditioning,
    PlannedConcept,
    attach,
    concatenate,
    cross_attention_layers,
    denoise,
    edited_projections,
    encode,
    generate,
    is_attached,
    locked_key_outputs,
    plan,
    stack,
    strength,
    unconditional,
)
from perfuse.errors import (
    BaseModelUnsuitable,
    FailedPrecondition,
    InvalidArgument,
    WrongShape,
)
from perfuse.method import Reach, Remainder

TEXT = "a photo of <tom> wearing <hat> in the snow"


def stock_pipeline(directory: Path) -> Any:
    """The base as anyone loads it with diffusers, over weights of its own."""
    if (directory / "text_encoder_2").exists():
        pipeline = StableDiffusionXLPipeline.from_pretrained(directory)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def concepts(base: BaseModel, *names: str) -> list[PlannedConcept]:
    known = {"tom": (1, "cat"), "hat": (2, "hat"), "teddy": (3, "teddy bear")}
    return [PlannedConcept(name, random_adapter(base, *known[name]), 0.4) for name in names]


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_without_concepts_pictures_are_the_stock_pipelines_bit_for_bit(
    directory: Path, base: BaseModel, guidance: float
) -> None:
    expected = stock_pipeline(directory)(
        "a photo of a cat",
        generator=[torch.Generator().manual_seed(7)],
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="np",
    ).images
    made = generate(
        base, [plan(base, "a photo of a cat")], seeds=[7], steps=4, guidance=guidance, output="np"
    )
    assert (made == expected).all()
    assert expected.std() > 0.05


def test_a_negative_prompt_and_another_scheduler_are_the_stock_pipelines_too(
    directory: Path, base: BaseModel
) -> None:
    pipeline = stock_pipeline(directory)
    # An ancestral scheduler draws noise in every step, each row from a generator of its own.
    ancestral = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    expected = pipeline(
        "a red dog",
        negative_prompt="snow",
        generator=[torch.Generator().manual_seed(3)],
        num_inference_steps=3,
        height=24,
        width=32,
        output_type="np",
    ).images
    made = generate(
        base,
        [plan(base, "a red dog")],
        negative=plan(base, "snow"),
        seeds=[3],
        steps=3,
        guidance=5.0 if base.pooled else 7.5,
        height=24,
        width=32,
        scheduler=ancestral,
        output="np",
    )
    assert made.shape == (1, 24, 32, 3)
    assert (made == expected).all()


def test_a_call_without_conditioning_is_untouched_while_attached(
    directory: Path, base: BaseModel
) -> None:
    pipeline = stock_pipeline(directory)

    def picture() -> Any:
        generator = torch.Generator().manual_seed(1)
        return pipeline(
            "a cat", generator=generator, num_inference_steps=2, output_type="np"
        ).images

    before = picture()
    with attach(pipeline.unet):
        assert is_attached(pipeline.unet)
        assert (picture() == before).all()


class PerStep:
    """The reference: a processor that computes the edited keys and values anew at every call."""

    def __init__(self, base: BaseModel, index: int, rows: list[list[PlannedConcept]]) -> None:
        self.base, self.index, self.rows = base, index, rows
        self.calls = 0

    def __call__(
        self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, attention_mask: Any = None
    ) -> Any:
        self.calls += 1
        keys, values = zip(
            *(
                self.projected(encodings[None], row)
                for encodings, row in zip(encoder_hidden_states, self.rows, strict=True)
            ),
            strict=True,
        )

        def split(tensor: Any) -> Any:
            return tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        out = functional.scaled_dot_product_attention(
            split(attn.to_q(hidden_states)), split(torch.cat(keys)), split(torch.cat(values))
        )
        return attn.to_out[0](out.transpose(1, 2).flatten(2))

    def projected(self, encodings: Any, row: list[PlannedConcept]) -> tuple[Any, Any]:
        layer = self.base.layers[self.index]
        if not row:
            return encodings @ layer.key_weight.T, encodings @ layer.value_weight.T
        inputs = torch.stack([concept.adapter.target_input for concept in row])
        supers = torch.stack([concept.adapter.super_category_encoding for concept in row])
        values = torch.stack([concept.adapter.value_output for concept in row])
        on = strength(self.base, encodings, inputs, 0.4, 0.15)
        made = edited_projections(
            self.base, encodings, on, values, locked_key_outputs(self.base, supers)
        )
        return made.keys[self.index], made.values[self.index]


def test_once_per_prompt_is_every_step(double_base: BaseModel, directory: Path) -> None:
    base = double_base
    named = concepts(base, "tom", "hat")
    # The reference edits as Eq. 3 is written.
    planned = plan(base, TEXT, named, remainder=Remainder.NOTHING, reach=Reach.EVERYWHERE)
    made = generate(base, [planned], seeds=[5], steps=4, output="latent")
    words = {concept.name: concept.adapter.embeddings for concept in named}
    encoding = encode(base, TEXT, words)
    against = unconditional(base)
    pipeline = stock_pipeline(directory).to(torch.float64)
    processors = []
    for index, layer in enumerate(cross_attention_layers(pipeline.unet)):
        processors.append(PerStep(base, index, [[], named]))
        layer.attention.processor = processors[-1]
    arguments = {}
    if base.pooled:
        arguments["pooled_prompt_embeds"] = encoding.pooled
        arguments["negative_pooled_prompt_embeds"] = against.pooled[None]
    expected = pipeline(
        prompt_embeds=encoding.encodings,
        negative_prompt_embeds=against.encodings[None],
        guidance_scale=7.5,
        generator=[torch.Generator().manual_seed(5)],
        num_inference_steps=4,
        output_type="latent",
        **arguments,
    ).images
    assert {processor.calls for processor in processors} in ({4}, {5})
    assert (made - expected).abs().max() <= 1e-10 * expected.abs().max()
    plain = plan(base, "a photo of cat wearing hat in the snow")
    unedited = generate(base, [plain], seeds=[5], steps=4, output="latent")
    assert (unedited - expected).abs().max() > 1e-2 * expected.abs().max()


def test_rows_with_0_to_3_concepts_at_other_timesteps_are_the_rows_alone(
    double_base: BaseModel,
) -> None:
    base = double_base
    rows = stack(
        [
            plan(base, "a red dog"),
            plan(base, "a <tom>", concepts(base, "tom")),
            plan(base, TEXT, concepts(base, "tom", "hat"), key_lock="GLOBAL"),
            plan(base, "<teddy>, <hat> and <tom>", concepts(base, "tom", "hat", "teddy")),
            unconditional(base),
        ]
    )
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(5, 4, 8, 8, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([999, 1, 500, 250, 750])
    with attach(base.unet), torch.no_grad():
        together = denoise(base, latents, timesteps, rows)
        for row in range(5):
            one = slice(row, row + 1)
            alone = denoise(
                base,
                latents[one],
                timesteps[one],
                Conditioning(
                    tuple(key[one] for key in rows.keys),
                    tuple(value[one] for value in rows.values),
                    rows.encodings[one],
                    None if rows.pooled is None else rows.pooled[one],
                ),
            )
            assert (together[row] - alone[0]).abs().max() <= 1e-12
        turned = denoise(
            base,
            latents.flip(0),
            timesteps.flip(0),
            Conditioning(
                tuple(key.flip(0) for key in rows.keys),
                tuple(value.flip(0) for value in rows.values),
                rows.encodings.flip(0),
                None if rows.pooled is None else rows.pooled.flip(0),
            ),
        )
        assert (turned.flip(0) - together).abs().max() <= 1e-12


def test_pictures_of_a_batch_are_the_pictures_alone(double_base: BaseModel) -> None:
    base = double_base
    plans = [
        plan(base, "a red dog"),
        plan(base, TEXT, concepts(base, "tom", "hat")),
        plan(base, "a <teddy>", concepts(base, "teddy")),
    ]
    negative = [unconditional(base), plan(base, "a <tom>", concepts(base, "tom"))]
    negative.append(plan(base, "a cat"))
    together = generate(base, plans, negative=negative, seeds=[4, 5, 6], steps=3, output="latent")
    for row in range(3):
        alone = generate(
            base, [plans[row]], negative=negative[row], seeds=[4 + row], steps=3, output="latent"
        )
        assert (together[row] - alone[0]).abs().max() <= 1e-11


def test_denoise_is_the_denoiser(base: BaseModel) -> None:
    made = plan(base, "a cat")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    added = None
    if base.pooled:
        sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
        added = {"text_embeds": made.pooled[None], "time_ids": sizes}
    with torch.no_grad():
        expected = base.unet(latents, 400, made.encodings[None], added_cond_kwargs=added).sample
        with attach(base.unet):
            made_once = denoise(base, latents, torch.tensor([400]), made.conditioning)
    assert torch.equal(made_once, expected)


def test_detaching_puts_back_the_very_processors(base: BaseModel) -> None:
    unet = base.unet
    before = unet.attn_processors
    state = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    with attach(unet):
        assert is_attached(unet)
        during = unet.attn_processors
        assert during.keys() == before.keys()
        assert not any(during[name] is before[name] for name in before)
    assert all(unet.attn_processors[name] is before[name] for name in before)
    assert not is_attached(unet)
    assert all(torch.equal(state[name], tensor) for name, tensor in unet.state_dict().items())
    attachment = attach(unet)
    attachment.detach()
    attachment.detach()
    assert all(unet.attn_processors[name] is before[name] for name in before)


def test_detaches_when_rendering_fails(tiny_sd15: BaseModel) -> None:
    with pytest.raises(ZeroDivisionError), attach(tiny_sd15.unet):
        raise ZeroDivisionError
    assert not is_attached(tiny_sd15.unet)


def test_generate_leaves_the_base_as_it_was(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    before = base.unet.attn_processors
    scheduler = base.pipeline.scheduler
    made = plan(base, TEXT, concepts(base, "tom", "hat"))
    first = generate(base, [made], seeds=[1], steps=2, output="np")
    with attach(base.unet):
        assert (generate(base, [made], seeds=[1], steps=2, output="np") == first).all()
        assert is_attached(base.unet)
    assert all(base.unet.attn_processors[name] is before[name] for name in before)
    assert base.pipeline.scheduler is scheduler
    assert scheduler.num_inference_steps is None
    ddim = DDIMScheduler.from_config(scheduler.config)
    assert (generate(base, [made], seeds=[1], steps=2, scheduler=ddim, output="np") != first).any()


def test_self_attention_hears_of_no_conditioning(
    tiny_sd15: BaseModel, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("diffusers")
    propagated, logger.propagate = logger.propagate, True
    try:
        generate(tiny_sd15, [plan(tiny_sd15, "a cat")], seeds=[1], steps=1, output="np")
    finally:
        logger.propagate = propagated
    assert caplog.records == []


def test_refusals(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    made = plan(base, "a cat")
    latents, times = torch.zeros(1, 4, 8, 8), torch.tensor([1])
    with pytest.raises(FailedPrecondition, match="call attach"):
        denoise(base, latents, times, made.conditioning)
    with pytest.raises(InvalidArgument, match="1 plans and 2 seeds"):
        generate(base, [made], seeds=[1, 2])
    with pytest.raises(InvalidArgument, match="2 negative plans for 1"):
        generate(base, [made], seeds=[1], negative=[made, made])
    attachment = attach(base.unet)
    try:
        with pytest.raises(WrongShape, match="2 rows"):
            denoise(base, latents, times, concatenate([made.conditioning] * 2))
        with pytest.raises(WrongShape, match="2 rows and the batch 1"):
            base.unet(
                latents,
                1,
                made.encodings[None],
                cross_attention_kwargs={"conditioning": concatenate([made.conditioning] * 2)},
            )
        with pytest.raises(BaseModelUnsuitable, match="once"):
            attach(base.unet)
        attention = base.layers[0].attention
        ours, attention.processor = attention.processor, AttnProcessor2_0()
        with pytest.raises(FailedPrecondition, match="replaced after attaching"):
            attachment.detach()
        attention.processor = ours
    finally:
        attachment.detach()
    assert not is_attached(base.unet)
