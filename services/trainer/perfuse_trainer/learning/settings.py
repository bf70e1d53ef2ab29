"""What a training run is asked to do; each default cites its source."""

from __future__ import annotations

from dataclasses import dataclass

from perfuse.errors import InvalidArgument
from perfuse.key_lock import KeyLock


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training run; validated when made.

    Attributes:
        super_category: The everyday noun that the concept is a kind of.
        placeholder: The word that stands for the concept in prompts, without angle brackets.
        key_lock: LOCAL or TRAINED_K; GLOBAL is a way of rendering a LOCAL adapter.
        steps: Optimiser steps.
        batch: Rows per step, the effective batch.
        output_rate: AdamW's learning rate of the target outputs (o*).
        embedding_rate: AdamW's learning rate of the placeholder's word embedding.
        bias: Gate bias during training; the paper found a higher one better (p. 9).
        temperature: Gate temperature during training.
        decay: Of the running mean of the target input, per optimiser step (paper Sec. 4.4).
        flip: Probability that a picture is mirrored; 0 for asymmetric subjects.
        seed: Of every draw: pictures, templates, timesteps, noise, validation.
        validate_every: Steps between validations on fixed noise and timesteps.
        validation_rows: Rows of the fixed validation batch.
        patience: Validations without a better one after which the run stops early; None never.
        render_bias, render_temperature: What the adapter suggests for rendering; the bias is
            measured (decision 27), the temperature the paper's (p. 9).

    Raises:
        InvalidArgument: A value outside its range; the message names it.
    """

    super_category: str
    placeholder: str = "concept"
    key_lock: KeyLock = KeyLock.LOCAL
    steps: int = 400
    batch: int = 16
    output_rate: float = 0.03
    embedding_rate: float = 0.006
    bias: float = 0.75
    temperature: float = 0.10
    decay: float = 0.99
    flip: float = 0.5
    seed: int = 0
    validate_every: int = 25
    validation_rows: int = 32
    patience: int | None = None
    render_bias: float = 0.40
    render_temperature: float = 0.15

    def __post_init__(self) -> None:
        if self.key_lock is KeyLock.GLOBAL:
            raise InvalidArgument(
                "key lock GLOBAL is a way of rendering, not of training; train with LOCAL, and "
                "render the same adapter with GLOBAL"
            )
        if not self.super_category.strip():
            raise InvalidArgument("the super-category is empty; give a noun such as 'cat'")
        ranges: dict[str, tuple[float, float]] = {
            "steps": (1, 100_000),
            "batch": (1, 1024),
            "output_rate": (1e-9, 10.0),
            "embedding_rate": (0.0, 10.0),
            "bias": (-10.0, 10.0),
            "temperature": (1e-6, 10.0),
            "decay": (0.0, 1.0),
            "flip": (0.0, 1.0),
            "seed": (0, 2**31 - 1),
            "validate_every": (1, 100_000),
            "validation_rows": (1, 1024),
            "render_bias": (0.0, 1.0),
            "render_temperature": (1e-3, 10.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidArgument(f"{name} is {value}; it must be from {low:g} to {high:g}")
        if self.patience is not None and self.patience < 1:
            raise InvalidArgument(f"patience is {self.patience}; it must be at least 1, or None")
