"""The equations once more, in float64 numpy, written from the paper and not from our code.

Inner products go through a Cholesky factor (C⁻¹ = L Lᵀ, ⟨a, b⟩ = (Lᵀ a)·(Lᵀ b)), several concepts
through the paper's own construction (App. B: an orthonormal basis by QR), positions through loops.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def second_moment(encodings: Array) -> Array:
    total = np.zeros((encodings.shape[-1],) * 2)
    for row in encodings.reshape(-1, encodings.shape[-1]):
        total += np.outer(row, row)
    return total / encodings.reshape(-1, encodings.shape[-1]).shape[0]


def similarity(e: Array, i: Array, inverse_covariance: Array) -> float:
    factor = np.linalg.cholesky(inverse_covariance)
    return float((factor.T @ i) @ (factor.T @ e) / ((factor.T @ i) @ (factor.T @ i)))


def projection(e: Array, inputs: Array, inverse_covariance: Array) -> Array:
    """P e = Σ_k u_k ⟨u_k, e⟩ with u_k = L⁻ᵀ ũ_k and ũ an orthonormal basis of the Lᵀ i*_j."""
    factor = np.linalg.cholesky(inverse_covariance)
    basis, _ = np.linalg.qr(factor.T @ inputs.T)
    projected = np.zeros_like(e)
    for column in basis.T:
        direction = np.linalg.solve(factor.T, column)
        projected += direction * (column @ (factor.T @ e))
    return projected


def edited(
    e: Array,
    weight: Array,
    inputs: Array,
    outputs: Array,
    inverse_covariance: Array,
    biases: Array,
    temperatures: Array,
) -> Array:
    """h = W (e − P e) + Σ_j σ((s_j − β_j)/τ_j) o*_j for one encoding and any number of concepts."""
    h = weight @ (e - projection(e, inputs, inverse_covariance))
    for i, o, bias, temperature in zip(inputs, outputs, biases, temperatures, strict=True):
        h = h + sigmoid((similarity(e, i, inverse_covariance) - bias) / temperature) * o
    return h


def rome_weight(weight: Array, i: Array, o: Array, inverse_covariance: Array) -> Array:
    """Ŵ = W + (o* − W i*) (C⁻¹ i*)ᵀ / ⟨i*, i*⟩ (Meng et al. 2022, Eq. 2)."""
    key = inverse_covariance @ i
    return weight + np.outer(o - weight @ i, key) / (i @ key)


def super_category_prompt(words: list[str], sub_tokens: dict[str, int]) -> list[tuple[int, str]]:
    """The prompt with placeholders spelled out, each token with the position it came from."""
    return [
        (position, f"{word}:{part}")
        for position, word in enumerate(words)
        for part in range(sub_tokens.get(word, 1))
    ]
