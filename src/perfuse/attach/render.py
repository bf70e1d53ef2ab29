"""From plans to pictures, with the stock pipeline; and one denoising step for any mix of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from perfuse.attach.base_model import BaseModel
from perfuse.attach.conditioning import Conditioning, concatenate
from perfuse.attach.plan import ConditioningPlan, stack, unconditional
from perfuse.attach.processor import KEYWORD, ConditionedAttention, attach, is_attached
from perfuse.errors import FailedPrecondition, InvalidArgument, WrongShape

Predict = Callable[..., torch.Tensor]
"""`predict`, or what stands in for it."""


@torch.no_grad()
def generate(
    base: BaseModel,
    plans: Sequence[ConditioningPlan],
    *,
    seeds: Sequence[int],
    negative: ConditioningPlan | Sequence[ConditioningPlan] | None = None,
    steps: int = 50,
    guidance: float = 7.5,
    height: int | None = None,
    width: int | None = None,
    scheduler: Any = None,
    output: str = "pil",
    **pipeline_arguments: Any,
) -> Any:
    """Render one picture per plan, all in one batch, with diffusers' own pipeline.

    Each row draws its noise from its seed on the CPU, so that neither batch nor device changes
    the draw. Attaches to the denoiser for the call where it is not attached already; in a process
    that renders from several threads, attach once beforehand.

    Args:
        base: the base model.
        plans: B plans.
        seeds: B seeds.
        negative: the unconditional side of the guidance: one plan for all, one each, or None for
            `unconditional(base)`. Not read where guidance is 1 or less.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        height, width: of the picture in pixels; the base's own by default.
        scheduler: a diffusers scheduler to use in place of the base's own.
        output: diffusers' `output_type`: "pil", "np", "pt" or "latent".
        pipeline_arguments: handed to the stock pipeline's call.

    Returns:
        What the pipeline calls `images`: a list of PIL pictures, or an array with B rows.

    Raises:
        InvalidArgument: numbers of plans, seeds and negatives that do not fit.
        BaseModelMismatch: plans of different base models.
        WrongShape: plans of different lengths.
    """
    if not plans or len(seeds) != len(plans):
        raise InvalidArgument(
            f"{len(plans)} plans and {len(seeds)} seeds; give one seed to each of at least one plan"
        )
    positive = stack(plans)
    arguments: dict[str, Any] = {
        "prompt_embeds": positive.encodings,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "height": height,
        "width": width,
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        "output_type": output,
    }
    if base.pooled:
        arguments["pooled_prompt_embeds"] = positive.pooled
    conditioning = positive
    if guidance > 1:
        against = _negative(base, negative, plans)
        conditioning = concatenate([against, positive])
        arguments["negative_prompt_embeds"] = against.encodings
        if base.pooled:
            arguments["negative_pooled_prompt_embeds"] = against.pooled
    pipeline = _private_pipeline(base, scheduler)
    with nullcontext() if is_attached(base.unet) else attach(base.unet):
        return pipeline(
            **arguments, cross_attention_kwargs={KEYWORD: conditioning}, **pipeline_arguments
        ).images


def denoise(
    base: BaseModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: Conditioning,
    *,
    time_ids: torch.Tensor | None = None,
    call: Predict | None = None,
) -> torch.Tensor:
    """The denoiser's prediction for rows that may each be at another timestep.

    Differentiable in the conditioning; the step of training and of the rendering engine.

    Args:
        base: the base model, attached.
        latents: [B, 4, h, w].
        timesteps: [B].
        conditioning: B rows.
        time_ids: [B, 6], SDXL's sizes and crop; by default the latents' own size, no crop.
        call: `predict`, or the same compiled.

    Returns:
        The prediction [B, 4, h, w]: noise or velocity, as `base.prediction_type` says.

    Raises:
        FailedPrecondition: the denoiser is not attached.
        WrongShape: numbers of rows that differ.
    """
    rows = latents.shape[0]
    if timesteps.shape != (rows,) or conditioning.rows != rows:
        raise WrongShape(
            f"{rows} latents, timesteps of shape {list(timesteps.shape)} and {conditioning.rows} "
            "rows of conditioning; each latent needs one timestep and one row"
        )
    if not isinstance(base.layers[0].attention.processor, ConditionedAttention):
        raise FailedPrecondition(
            "the denoiser is not attached, so it would not see the conditioning; call attach(unet)"
        )
    if base.pooled and time_ids is None:
        time_ids = _time_ids(base, latents)
    return (call or predict)(
        base.unet,
        latents,
        timesteps,
        conditioning.keys,
        conditioning.values,
        conditioning.encodings,
        conditioning.pooled,
        time_ids,
    )


def predict(
    unet: Any,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    keys: tuple[torch.Tensor, ...],
    values: tuple[torch.Tensor, ...],
    encodings: torch.Tensor,
    pooled: torch.Tensor | None,
    time_ids: torch.Tensor | None,
) -> torch.Tensor:
    """The call of an attached denoiser, on tensors alone so that it can be compiled.

    What is in the tensors, whose concepts and at which timestep, does not change the graph.

    Args:
        unet: attached.
        latents, timesteps: as `denoise` takes them.
        keys, values, encodings, pooled: of a `Conditioning`.
        time_ids: [B, 6] where there is a pooled encoding, else None.
    """
    added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
    prediction: torch.Tensor = unet(
        latents,
        timesteps,
        encoder_hidden_states=encodings,
        added_cond_kwargs=added,
        cross_attention_kwargs={KEYWORD: Conditioning(keys, values, encodings, pooled)},
        return_dict=False,
    )[0]
    return prediction


def _negative(
    base: BaseModel,
    negative: ConditioningPlan | Sequence[ConditioningPlan] | None,
    plans: Sequence[ConditioningPlan],
) -> Conditioning:
    rows = len(plans)
    if negative is None:
        negative = unconditional(base, len(plans[0].chunks))
    if isinstance(negative, ConditioningPlan):
        negative = [negative] * rows
    if len(negative) != rows:
        raise InvalidArgument(
            f"{len(negative)} negative plans for {rows} plans; give one or {rows}"
        )
    return stack(negative)


def _private_pipeline(base: BaseModel, scheduler: Any) -> Any:
    """A pipeline over the same modules with a scheduler and settings of its own.

    The stock pipeline keeps the guidance scale, and the scheduler the step, on the object.
    """
    stock = base.pipeline
    components = dict(stock.components)
    scheduler = scheduler or stock.scheduler
    components["scheduler"] = type(scheduler).from_config(scheduler.config)
    settings = {
        key: stock.config[key]
        for key in ("requires_safety_checker", "force_zeros_for_empty_prompt")
        if key in stock.config
    }
    if base.pooled:
        settings["add_watermarker"] = False
    pipeline = type(stock)(**components, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _time_ids(base: BaseModel, latents: torch.Tensor) -> torch.Tensor:
    """Sizes of original and target and a crop at the corner [B, 6], in pixels."""
    scale = base.pipeline.vae_scale_factor
    height, width = latents.shape[-2] * scale, latents.shape[-1] * scale
    ids = torch.tensor([[height, width, 0, 0, height, width]], device=latents.device)
    return ids.to(latents.dtype).repeat(latents.shape[0], 1)
