"""Random instances of the method: encodings, concepts and a projection, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]

fast = settings(deadline=None, derandomize=True, max_examples=40)


@dataclass(frozen=True)
class Case:
    """Arrays of one type; names and axes as in perfuse.method."""

    encodings: Array  # [B, M, d]
    target_inputs: Array  # [J, d]
    target_outputs: Array  # [J, d_l]
    inverse_covariance: Array  # [d, d]
    weight: Array  # [d_l, d]
    biases: Array  # [J]
    temperatures: Array  # [J]

    def rounded(self, dtype: type[np.floating]) -> Case:
        """The same numbers as another type holds them, given back as float64."""
        return Case(*(getattr(self, f.name).astype(dtype).astype(np.float64) for f in fields(self)))

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
        return {f.name: torch.from_numpy(getattr(self, f.name)).to(dtype) for f in fields(self)}


def make(
    seed: int = 0,
    *,
    batch: int = 2,
    positions: int = 7,
    width: int = 24,
    outputs: int = 10,
    concepts: int = 3,
    cosine: float = 0.5,
    condition: float = 1e3,
) -> Case:
    """One case; the target inputs have C⁻¹-cosine `cosine` with each other.

    Every concept's word stands twice in each prompt where there is room, next to the other words
    of concepts, as a noisy target input of another length.
    """
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((width, width)))
    spectrum = condition ** np.linspace(0, 1, width)
    root = rotation * np.sqrt(spectrum)  # C = root rootᵀ, so that white noise z has encoding root z
    inverse_covariance = (rotation / spectrum) @ rotation.T
    inverse_covariance = (inverse_covariance + inverse_covariance.T) / 2

    white, _ = np.linalg.qr(rng.standard_normal((width, concepts + 1)))
    inputs = np.sqrt(1 - cosine) * white[:, 1:].T + np.sqrt(cosine) * white[:, 0]
    inputs = (inputs * rng.uniform(0.3, 3, (concepts, 1))) @ root.T

    encodings = rng.standard_normal((batch, positions, width)) / np.sqrt(width) @ root.T
    for row in encodings:
        words = np.tile(np.arange(concepts), 2)[:positions]
        start = rng.integers(0, positions - len(words) + 1)
        row[start : start + len(words)] *= 0.2
        row[start : start + len(words)] += inputs[words] * rng.uniform(0.5, 1.2, (len(words), 1))
    return Case(
        encodings=encodings,
        target_inputs=inputs,
        target_outputs=rng.standard_normal((concepts, outputs)),
        inverse_covariance=inverse_covariance,
        weight=rng.standard_normal((outputs, width)) / np.sqrt(width),
        biases=rng.uniform(0.3, 0.9, concepts),
        temperatures=rng.uniform(0.08, 0.3, concepts),
    )


@st.composite
def cases(draw: st.DrawFn, max_concepts: int = 8) -> Case:
    concepts = draw(st.integers(1, max_concepts))
    return make(
        draw(st.integers(0, 2**32 - 1)),
        batch=draw(st.integers(1, 3)),
        positions=draw(st.integers(1, 20)),
        width=draw(st.integers(concepts + 1, 48)),
        outputs=draw(st.integers(1, 40)),
        concepts=concepts,
        cosine=draw(st.floats(0, 0.95)),
        condition=10 ** draw(st.floats(0, 3.6)),
    )


def relative_error(value: torch.Tensor, reference: Array) -> float:
    """‖value − reference‖ / ‖reference‖ over all entries."""
    difference = value.detach().to(torch.float64).numpy() - reference
    return float(np.linalg.norm(difference) / np.linalg.norm(reference))
