"""The tensors that reach the denoiser: one row per sample, each with its own concepts or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from perfuse.attach.projection import Projections
from perfuse.errors import InvalidArgument, WrongShape


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Keys and values for a batch of B samples.

    Attributes:
        keys: per layer in the declared order [B, M, d_l].
        values: likewise.
        encodings: e [B, M, d]; the denoiser wants them in its signature, no layer reads them.
        pooled: [B, p] where the denoiser reads a pooled encoding (SDXL), else None.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    encodings: torch.Tensor
    pooled: torch.Tensor | None = None

    @classmethod
    def of(
        cls, projections: Projections, encodings: torch.Tensor, pooled: torch.Tensor | None = None
    ) -> Conditioning:
        """Projections of a batch, as training makes them."""
        return cls(projections.keys, projections.values, encodings, pooled)

    @property
    def rows(self) -> int:
        """B."""
        return int(self.encodings.shape[0])


def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
    """One batch from several, in order.

    Raises:
        InvalidArgument: nothing is given.
        WrongShape: rows of different lengths.
    """
    if not parts:
        raise InvalidArgument("no conditioning is given; a batch has at least one row")
    if len(lengths := {part.encodings.shape[1] for part in parts}) > 1:
        raise WrongShape(
            f"rows of {', '.join(map(str, sorted(lengths)))} positions; a batch has rows of one "
            "length, so plan all of its prompts with the same min_chunks"
        )
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(
        keys=tuple(torch.cat(layer) for layer in zip(*(part.keys for part in parts), strict=True)),
        values=tuple(
            torch.cat(layer) for layer in zip(*(part.values for part in parts), strict=True)
        ),
        encodings=torch.cat([part.encodings for part in parts]),
        pooled=torch.cat(pooled) if pooled else None,
    )
