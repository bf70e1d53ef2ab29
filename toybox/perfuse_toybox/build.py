"""`python -m perfuse_toybox.build`: the base model from nothing to weights.

Every stage keeps its state under `--work` and goes on from there, so the command may be stopped
and given again. Asking for more `--denoiser-steps` than before trains a finished base on.
"""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from perfuse import attach
from perfuse_toybox.assembly import assemble
from perfuse_toybox.autoencoder import AutoencoderRecipe, encode_corpus, train_autoencoder
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.captions import caption
from perfuse_toybox.corpus import Corpus
from perfuse_toybox.curves import draw_curves
from perfuse_toybox.denoiser import DenoiserRecipe, DenoiserTraining
from perfuse_toybox.language import build_tokenizer
from perfuse_toybox.world import training_picture

_COLUMNS = (
    TextColumn("{task.description:<28}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}"),
    TimeRemainingColumn(),
)


def build(
    out: Annotated[Path, typer.Option(help="Where the base goes.")] = DIRECTORY,
    work: Annotated[Path, typer.Option(help="Where the build keeps its state.")] = Path("build"),
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    pictures: Annotated[int, typer.Option(help="Size of the corpus.")] = 48_000,
    seed: Annotated[int, typer.Option(help="Of the corpus.")] = 101,
    autoencoder_steps: Annotated[int, typer.Option()] = AutoencoderRecipe.steps,
    denoiser_steps: Annotated[int, typer.Option()] = DenoiserRecipe.steps,
    captions: Annotated[int, typer.Option(help="Captions behind the covariance.")] = 24_000,
) -> None:
    """Draw the world, train autoencoder, text encoder and denoiser, prepare the covariance."""
    work.mkdir(parents=True, exist_ok=True)
    with Progress(*_COLUMNS, console=Console(stderr=True)) as bar:
        task = bar.add_task("drawing the corpus", total=pictures, note="")
        corpus = Corpus.draw(
            pictures, seed, on_progress=lambda drawn: bar.update(task, completed=drawn)
        )
        recipe = AutoencoderRecipe(steps=autoencoder_steps)
        with _curve(bar, work / "autoencoder.csv", "training the autoencoder", recipe.steps) as on:
            autoencoder = train_autoencoder(corpus, recipe, work / "autoencoder.pt", on, device)
        latents = _latents(bar, work, autoencoder, corpus, seed, device)
        tokenizer = build_tokenizer()
        denoiser = DenoiserRecipe(steps=denoiser_steps)
        training = DenoiserTraining(
            tokenizer, corpus, latents, denoiser, work / "denoiser.pt", device
        )
        with _curve(bar, work / "denoiser.csv", "training the denoiser", denoiser.steps) as on:
            training.run(on)
        unet, text_encoder = training.averaged()
        assemble(out, tokenizer, text_encoder, autoencoder.cpu(), unet)
        _prepare(bar, out, work, captions)
    draw_curves(work, work / "curves.png")
    typer.echo(f"{out}: {attach.BaseModel.load(out).fingerprint}; curves in {work}/curves.png")


def _latents(
    bar: Progress, work: Path, autoencoder: AutoencoderKL, corpus: Corpus, seed: int, device: str
) -> Tensor:
    kept = work / f"latents-{len(corpus)}-{seed}.pt"
    if kept.exists():
        latents: Tensor = torch.load(kept, weights_only=True)
        return latents
    task = bar.add_task("encoding the corpus", total=len(corpus), note="")
    latents = encode_corpus(
        autoencoder, corpus, lambda encoded: bar.update(task, completed=encoded), device
    )
    torch.save(latents, kept)
    return latents


def _prepare(bar: Progress, out: Path, work: Path, captions: int) -> None:
    lot = random.Random(77)
    file = work / "captions.txt"
    file.write_text("".join(caption(training_picture(lot), lot) + "\n" for _ in range(captions)))
    task = bar.add_task("covariance of the captions", total=captions, note="")
    attach.prepare(
        out,
        file,
        restart=True,
        progress=lambda done, total: bar.update(task, completed=done, total=total),
    )


@contextmanager
def _curve(
    bar: Progress, file: Path, label: str, steps: int
) -> Iterator[Callable[[int, float], None]]:
    """A progress bar and a CSV of (step, loss, seconds since the epoch) for one stage."""
    task = bar.add_task(label, total=steps, note="")
    with file.open("a", newline="") as log:
        rows = csv.writer(log)

        def on_step(step: int, loss: float) -> None:
            rows.writerow([step, f"{loss:.5f}", f"{time.time():.0f}"])
            bar.update(task, completed=step, note=f"loss {loss:.3f}")

        yield on_step
        bar.update(task, completed=steps)


if __name__ == "__main__":
    typer.run(build)
