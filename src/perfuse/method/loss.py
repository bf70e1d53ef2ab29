"""The base model's own objective, weighted by a soft mask (paper p. 9).

    weight × (prediction − target)², averaged over each row

Rows stay apart, so that training runs that share a forward pass can each take their own.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from perfuse.errors import InvalidArgument, WrongShape
from perfuse.method.operands import require_axes, require_finite, result_dtype

PredictionType = Literal["epsilon", "v_prediction"]


def masked_loss(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """mean over channels and positions of weight × (prediction − target)², for each row.

    Args:
        prediction: [B, C, H, W].
        target: [B, C, H, W].
        weight: [B, 1, H, W], usually from `soft_mask`; None weighs every position 1.

    Returns:
        [B], in at least float32.

    Raises:
        WrongShape: the axes do not fit each other.
    """
    require_axes(prediction=(prediction, "B C H W"), target=(target, "B C H W"))
    dtype = result_dtype(prediction, target)
    error = (prediction.to(dtype) - target.to(dtype)).square()
    if weight is not None:
        require_axes(prediction=(prediction, "B C H W"), weight=(weight, "B 1 H W"))
        error = weight.to(dtype) * error
    return error.mean(dim=(1, 2, 3))


def soft_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask at the latents' size, divided by each picture's maximum (paper p. 9).

    Shrinking averages areas, so that no marked pixel is lost; growing is bilinear. Meant for the
    preparation of training pictures: it looks at the numbers, which waits for the device.

    Args:
        mask: [B, 1, h, w], not negative; any scale, also bool or integers.
        size: (H, W) of the latents.

    Returns:
        [B, 1, H, W] in at least float32, with a maximum of exactly 1 in each picture.

    Raises:
        WrongShape: the axes are not [B, 1, h, w], or a size is below 1.
        NotFinite: an entry is NaN or infinite.
        InvalidArgument: an entry is negative, or a picture's mask is zero everywhere.
    """
    mask = mask if mask.is_floating_point() else mask.to(torch.float32)
    require_axes(mask=(mask, "B 1 h w"))
    if min(size) < 1 or 0 in mask.shape:
        raise WrongShape(
            f"a mask of shape {list(mask.shape)} cannot be resized to {list(size)}; "
            "every size must be at least 1"
        )
    require_finite(mask=mask)
    if (lowest := mask.min().item()) < 0:
        raise InvalidArgument(f"mask has an entry of {lowest:.3g}; a weight is at least 0")
    shrinks = mask.shape[-2] > size[0] or mask.shape[-1] > size[1]
    resized = functional.interpolate(
        mask.to(result_dtype(mask)), size=size, mode="area" if shrinks else "bilinear"
    )
    maximum = resized.amax(dim=(1, 2, 3), keepdim=True)
    empty = (maximum.flatten() == 0).nonzero().flatten().tolist()
    if empty:
        raise InvalidArgument(
            f"the masks of rows {empty} are zero everywhere; a mask must mark the subject: give "
            "another mask, or train that picture without one"
        )
    return resized / maximum


def diffusion_target(
    prediction_type: PredictionType,
    sample: Tensor,
    noise: Tensor,
    alphas_cumprod: Tensor,
    timesteps: Tensor,
) -> Tensor:
    """What the base model is trained to predict: ε, or v = √ᾱ_t ε − √(1 − ᾱ_t) x₀.

    ε after Ho et al. 2020, Eq. 14; v after Salimans and Ho 2022, App. D.

    Args:
        prediction_type: "epsilon" or "v_prediction", as in the base model's scheduler.
        sample: the clean latents x₀ [B, C, H, W].
        noise: ε [B, C, H, W].
        alphas_cumprod: ᾱ [T].
        timesteps: t [B], integers in 0 to T − 1.

    Returns:
        [B, C, H, W], of the noise's type.

    Raises:
        WrongShape: sample and noise differ in shape, or timesteps are not one per row.
        InvalidArgument: another prediction type, timesteps that are not integers, or (looked at
            on the CPU only) outside the schedule.
    """
    if prediction_type not in get_args(PredictionType):
        raise InvalidArgument(
            f"prediction_type is {prediction_type!r}; it must be one of "
            f"{', '.join(get_args(PredictionType))}: use a base model trained with one of them"
        )
    require_axes(
        sample=(sample, "B C H W"), noise=(noise, "B C H W"), alphas_cumprod=(alphas_cumprod, "T")
    )
    _require_timesteps(timesteps, noise.shape[0], alphas_cumprod.shape[0])
    if prediction_type == "epsilon":
        return noise
    dtype = result_dtype(sample, noise, alphas_cumprod)
    # The schedule stays in float32 or wider: 1 − ᾱ of a half is 0 at the early timesteps.
    alpha = alphas_cumprod.to(sample.device, dtype)[timesteps.to(sample.device)]
    alpha = alpha.reshape(-1, 1, 1, 1)
    return (alpha.sqrt() * noise - (1 - alpha).sqrt() * sample).to(noise.dtype)


def _require_timesteps(timesteps: Tensor, rows: int, length: int) -> None:
    if timesteps.dtype not in (torch.int64, torch.int32):
        raise InvalidArgument(
            f"timesteps are of type {timesteps.dtype}; they must be integers: convert with .long()"
        )
    if timesteps.shape != (rows,):
        raise WrongShape(
            f"timesteps have shape {list(timesteps.shape)}; there must be one per row: [{rows}]"
        )
    if timesteps.device.type != "cpu" or rows == 0:
        return
    lowest, highest = timesteps.min().item(), timesteps.max().item()
    if lowest < 0 or highest >= length:
        raise InvalidArgument(
            f"timesteps lie between {lowest} and {highest}; the schedule has 0 to {length - 1}: "
            "draw them from the base model's own scheduler"
        )
