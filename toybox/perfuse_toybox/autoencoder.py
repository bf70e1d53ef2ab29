"""The base's autoencoder: 32 × 32 pictures to latents of 16 × 8 × 8, a third of the numbers.

Eight by eight positions keep the denoiser four times cheaper than sixteen by sixteen, and sixteen
channels hold each 4 × 4 patch nearly without loss, which pixel art shows no mercy about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from perfuse_toybox import checkpoint
from perfuse_toybox.corpus import Corpus
from perfuse_toybox.optimiser import BuildOptimiser, schedule
from perfuse_toybox.world import SIZE

LATENT_CHANNELS = 16
KL_WEIGHT = 5e-4
"""Per latent number, beside a mean absolute error per pixel: latents that bear a little noise."""


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How the autoencoder is trained."""

    steps: int = 1400
    batch: int = 32
    matrix_rate: float = 0.02
    other_rate: float = 2e-3
    seed: int = 11


def build_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder in diffusers' own class.

    Its posterior starts narrow: at unit width the noise drowns the first thousand steps.
    """
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )
    with torch.no_grad():
        autoencoder.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = -5.0
    return autoencoder


def train_autoencoder(
    corpus: Corpus,
    recipe: AutoencoderRecipe,
    state_file: Path,
    on_step: Callable[[int, float], None],
    device: str = "cpu",
) -> AutoencoderKL:
    """Train to the recipe's end, from `state_file` where it exists; sets `scaling_factor`."""
    torch.manual_seed(recipe.seed)
    autoencoder = build_autoencoder().to(device, memory_format=torch.channels_last)
    optimiser = BuildOptimiser([autoencoder], recipe.matrix_rate, recipe.other_rate)
    first = 0
    if state := checkpoint.load(state_file):
        autoencoder.load_state_dict(state["autoencoder"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    for step in range(first, recipe.steps):
        lot = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        rows = torch.randint(len(corpus), (recipe.batch,), generator=lot)
        pictures = corpus.samples(rows).to(device)
        posterior = autoencoder.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=lot).to(device)
        painted = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = (painted - pictures).abs().mean()
        squared = (painted - pictures).square().mean()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        (error + squared + KL_WEIGHT * divergence).backward()
        optimiser.step(schedule(step, recipe.steps))
        on_step(step + 1, float(error.detach()))
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            checkpoint.save(
                state_file,
                {
                    "autoencoder": autoencoder.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    autoencoder.eval().requires_grad_(False)
    autoencoder.register_to_config(scaling_factor=1.0 / _latent_spread(autoencoder, corpus, device))
    return autoencoder


@torch.no_grad()
def encode_corpus(
    autoencoder: AutoencoderKL,
    corpus: Corpus,
    on_progress: Callable[[int], None] = lambda encoded: None,
    device: str = "cpu",
) -> Tensor:
    """Scaled latent means of the whole corpus, `[N, 16, 8, 8]` float16 on the CPU."""
    latents = []
    for rows in torch.arange(len(corpus)).split(256):
        means = autoencoder.encode(corpus.samples(rows).to(device)).latent_dist.mean
        latents.append((means * autoencoder.config.scaling_factor).half().cpu().contiguous())
        on_progress(int(rows[-1]) + 1)
    return torch.cat(latents)


@torch.no_grad()
def _latent_spread(autoencoder: AutoencoderKL, corpus: Corpus, device: str) -> float:
    rows = torch.arange(min(2048, len(corpus)))
    means = autoencoder.encode(corpus.samples(rows).to(device)).latent_dist.mean
    return round(float(means.std()), 4)
