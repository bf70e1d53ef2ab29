"""Loss curves of a build, with the time it took on what."""

from __future__ import annotations

import csv
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

_PAUSE = 120.0
"""Seconds between two steps above which the build was stopped, not slow."""


@dataclass(frozen=True)
class Curve:
    """One stage's log.

    Attributes:
        steps: Step numbers.
        losses: One loss a step.
        hours: Time spent in steps, pauses left out.
    """

    steps: np.ndarray
    losses: np.ndarray
    hours: float

    @classmethod
    def read(cls, file: Path) -> Curve:
        """Read a CSV of (step, loss, seconds); of a step done twice, the later one counts."""
        with file.open(newline="") as rows:
            log = {int(step): (float(loss), float(at)) for step, loss, at in csv.reader(rows)}
        steps = sorted(log)
        times = np.array([log[step][1] for step in steps])
        gaps = np.diff(times)
        hours = float(gaps[(gaps > 0) & (gaps < _PAUSE)].sum()) / 3600
        return cls(np.array(steps), np.array([log[step][0] for step in steps]), hours)


def draw_curves(work: Path, picture: Path) -> None:
    """Draw the autoencoder's and the denoiser's curves from a build's `work` directory."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    stages = (
        ("autoencoder", "mean absolute error per pixel"),
        ("denoiser", "squared error of the velocity"),
    )
    for axes, (stage, unit) in zip(figure.subplots(1, 2), stages, strict=True):
        curve = Curve.read(work / f"{stage}.csv")
        width = max(1, min(50, len(curve.losses) // 20))
        smooth = np.convolve(curve.losses, np.ones(width) / width, mode="valid")
        axes.plot(curve.steps, curve.losses, color="#c9d3e0", linewidth=0.6)
        axes.plot(curve.steps[width - 1 :], smooth, color="#2b6cb0", linewidth=1.4)
        axes.set_yscale("log")
        axes.set_title(f"{stage}: {curve.steps[-1]} steps, {curve.hours:.1f} h", fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel(unit, fontsize=9)
    figure.suptitle(_hardware(), fontsize=8, color="#666666")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)


def _hardware() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores ({platform.machine()}), {device}, torch {torch.__version__}"
