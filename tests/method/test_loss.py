"""The weighted loss, its mask, and what is predicted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument, NotFinite, WrongShape
from perfuse.method import diffusion_target, masked_loss, soft_mask

from .cases import fast, relative_error


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 3),
    channels=st.integers(1, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
@fast
def test_the_loss_of_each_row(seed: int, rows: int, channels: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, target = rng.standard_normal((2, rows, channels, height, width))
    weight = rng.uniform(0, 1, (rows, 1, height, width))
    expected = [
        sum(
            weight[b, 0, y, x] * (prediction[b, c, y, x] - target[b, c, y, x]) ** 2
            for c in range(channels)
            for y in range(height)
            for x in range(width)
        )
        / (channels * height * width)
        for b in range(rows)
    ]
    tensors = [torch.from_numpy(array) for array in (prediction, target, weight)]
    assert relative_error(masked_loss(*tensors), np.array(expected)) <= 1e-12
    single = masked_loss(*(tensor.float() for tensor in tensors))
    assert relative_error(single, np.array(expected)) <= 1e-5


def test_no_weight_is_the_mean_squared_error_and_rows_stay_apart() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    expected = (prediction - target).square().flatten(1).mean(1)
    torch.testing.assert_close(masked_loss(prediction, target, None), expected)
    ones = torch.ones(3, 1, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(masked_loss(prediction, target, ones), expected)
    target[1] += 1
    assert torch.equal(masked_loss(prediction, target, None)[[0, 2]], expected[[0, 2]])


def test_halves_do_not_overflow() -> None:
    prediction = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)
    loss = masked_loss(prediction, -prediction, torch.ones(1, 1, 2, 2, dtype=torch.float16))
    assert loss.tolist() == [360_000.0]


def test_the_loss_refuses_other_shapes() -> None:
    prediction = torch.zeros(2, 4, 8, 8)
    with pytest.raises(WrongShape, match="target has shape"):
        masked_loss(prediction, torch.zeros(2, 4, 8, 7), None)
    with pytest.raises(WrongShape, match="weight has shape \\[2, 4, 8, 8\\]"):
        masked_loss(prediction, prediction, prediction)
    with pytest.raises(WrongShape, match="weight has shape \\[1, 1, 8, 8\\]"):
        masked_loss(prediction, prediction, torch.zeros(1, 1, 8, 8))


def test_a_mask_shrinks_by_areas_and_each_pictures_maximum_is_one() -> None:
    torch.manual_seed(0)
    mask = torch.rand(2, 1, 8, 12, dtype=torch.float64)
    mask[1] *= 1e-3
    blocks = mask.reshape(2, 1, 4, 2, 3, 4).mean(dim=(3, 5))
    expected = blocks / blocks.amax(dim=(1, 2, 3), keepdim=True)
    result = soft_mask(mask, (4, 3))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)
    assert result.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0]


def test_a_mask_keeps_a_single_pixel_and_its_scale_cancels() -> None:
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    mask[0, 0, 13, 50] = 255
    result = soft_mask(mask, (8, 8))
    assert result.nonzero().tolist() == [[0, 0, 1, 6]]
    assert result[0, 0, 1, 6] == 1
    assert torch.equal(soft_mask(mask > 0, (8, 8)), result)


def test_a_mask_grows_smoothly_and_stays_at_its_own_size() -> None:
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    grown = soft_mask(mask, (4, 4))
    assert (grown.diff(dim=-1) >= 0).all()
    assert grown.unique().numel() > 2
    assert torch.equal(soft_mask(mask, (2, 2)), mask)


def test_a_mask_without_a_subject_is_refused() -> None:
    mask = torch.ones(3, 1, 4, 4)
    mask[1] = 0
    with pytest.raises(InvalidArgument, match=r"rows \[1\] are zero"):
        soft_mask(mask, (2, 2))
    mask[1, 0, 0, 0] = -0.5
    with pytest.raises(InvalidArgument, match=r"entry of -0\.5"):
        soft_mask(mask, (2, 2))
    mask[1, 0, 0, 0] = math.nan
    with pytest.raises(NotFinite, match="mask holds 1"):
        soft_mask(mask, (2, 2))
    with pytest.raises(WrongShape, match="mask has shape \\[4, 4\\]"):
        soft_mask(mask[0, 0], (2, 2))
    with pytest.raises(WrongShape, match="at least 1"):
        soft_mask(mask, (0, 2))


def schedule() -> torch.Tensor:
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64), 0)


def test_the_targets() -> None:
    torch.manual_seed(0)
    sample, noise = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    alphas, timesteps = schedule(), torch.tensor([0, 50, 99])
    assert torch.equal(diffusion_target("epsilon", sample, noise, alphas, timesteps), noise)
    v = diffusion_target("v_prediction", sample, noise, alphas, timesteps)
    for row, t in enumerate(timesteps.tolist()):
        alpha = float(alphas[t])
        expected = math.sqrt(alpha) * noise[row] - math.sqrt(1 - alpha) * sample[row]
        torch.testing.assert_close(v[row], expected, rtol=1e-12, atol=1e-15)
        # v undoes the noising: x₀ = √ᾱ x_t − √(1 − ᾱ) v
        noisy = math.sqrt(alpha) * sample[row] + math.sqrt(1 - alpha) * noise[row]
        again = math.sqrt(alpha) * noisy - math.sqrt(1 - alpha) * v[row]
        torch.testing.assert_close(again, sample[row], rtol=1e-10, atol=1e-12)


def test_the_schedule_of_halves_stays_wide() -> None:
    sample, noise = torch.ones(1, 1, 1, 1).half(), torch.zeros(1, 1, 1, 1).half()
    v = diffusion_target("v_prediction", sample, noise, schedule().float(), torch.tensor([0]))
    assert v.dtype == torch.float16
    assert v.item() == pytest.approx(-0.01, rel=1e-2)


def test_the_targets_refuse() -> None:
    x, alphas = torch.zeros(2, 4, 3, 3), schedule()
    with pytest.raises(InvalidArgument, match=r"'sample'.*epsilon, v_prediction"):
        diffusion_target("sample", x, x, alphas, torch.tensor([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="between 1 and 100; the schedule has 0 to 99"):
        diffusion_target("epsilon", x, x, alphas, torch.tensor([1, 100]))
    with pytest.raises(WrongShape, match="one per row"):
        diffusion_target("epsilon", x, x, alphas, torch.tensor([1]))
    with pytest.raises(InvalidArgument, match="integers"):
        diffusion_target("epsilon", x, x, alphas, torch.tensor([1.0, 2.0]))
    with pytest.raises(WrongShape, match="noise has shape"):
        diffusion_target("epsilon", x, x[:1], alphas, torch.tensor([1, 2]))
