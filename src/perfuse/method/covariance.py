"""C, the uncentred second moment of a base model's text encodings (paper App. C).

    C = E[e eᵀ]        matrix, d × d, over the encodings of many captions
    C⁻¹                inverse(ridge): the metric ⟨a, b⟩ = aᵀ C⁻¹ b of every other equation

C belongs to a base model, not to a concept. Any scaling of it cancels in the equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from perfuse.errors import InvalidArgument, SingularCovariance, WrongShape
from perfuse.method.operands import require_axes, require_finite

ENCODINGS_PER_DIRECTION = 2
"""Fewest encodings per direction reached. With fewer, the captions and not the text encoder decide
which directions C spans, and the next caption would still change the edit. It is a floor, not
advice: the paper uses 100 000 captions, above a thousand encodings per direction."""

SYMMETRY_TOLERANCE = 1e-9
"""Largest |C − Cᵀ| relative to the largest entry: above float64 rounding, below any real fault."""


@dataclass(frozen=True, eq=False)
class Covariance:
    """The second moment of text encodings, ready to be inverted.

    Attributes:
        matrix: E[e eᵀ], float64 [d, d], symmetric.
        count: how many encodings (token positions, not captions) it is the mean of.

    Raises:
        WrongShape: the matrix is not square.
        InvalidArgument: it is not float64, not symmetric, or the count is negative.
        NotFinite: it holds NaN or infinity.
    """

    matrix: Tensor
    count: int

    def __post_init__(self) -> None:
        require_axes(matrix=(self.matrix, "d d"))
        if self.matrix.dtype != torch.float64:
            raise InvalidArgument(
                f"matrix is of type {self.matrix.dtype}; a covariance is kept in float64: "
                "accumulate it with CovarianceAccumulator or convert it with .double()"
            )
        if self.count < 0:
            raise InvalidArgument(f"count is {self.count}; it is a number of encodings, at least 0")
        require_finite(matrix=self.matrix)
        largest = float(self.matrix.abs().amax()) if self.matrix.numel() else 0.0
        skew = float((self.matrix - self.matrix.mT).abs().amax()) if self.matrix.numel() else 0.0
        if skew > SYMMETRY_TOLERANCE * largest:
            raise InvalidArgument(
                f"matrix differs from its transpose by {skew:.3g} where its largest entry is "
                f"{largest:.3g}; E[e eᵀ] is symmetric: check how it was stored"
            )

    @property
    def width(self) -> int:
        """d, the width of the encodings."""
        return self.matrix.shape[0]

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, ascending [d], and eigenvectors as columns [d, d]."""
        values, vectors = torch.linalg.eigh((self.matrix + self.matrix.mT) / 2)
        return values, vectors

    def rank(self) -> int:
        """The number of directions that the encodings span, to float64 rounding."""
        values, _ = self._spectrum
        return int((values > _rounding(values)).sum())

    def condition_number(self) -> float:
        """Largest over smallest eigenvalue; infinite where C is singular."""
        values, _ = self._spectrum
        if self.rank() < self.width:
            return math.inf
        return float(values[-1] / values[0])

    def inverse(self, ridge: float) -> Tensor:
        """C⁻¹ after adding `ridge` × the mean eigenvalue to the diagonal.

        Args:
            ridge: relative ridge λ ≥ 0. A text encoder that spans every direction needs none; a
                small one, whose encodings leave directions out, needs about 1e-6 to 1e-3.

        Returns:
            float64 [d, d], exactly symmetric, finite and positive definite.

        Raises:
            InvalidArgument: the ridge is negative or not finite.
            SingularCovariance: too few encodings, or directions left out and too small a ridge.
        """
        if not (math.isfinite(ridge) and ridge >= 0):
            raise InvalidArgument(
                f"ridge is {ridge}; it must be finite and at least 0 (1e-4 is a usual value)"
            )
        rank = self.rank()
        required = ENCODINGS_PER_DIRECTION * max(rank, 1)
        if self.count < required:
            raise SingularCovariance(
                f"{self.count} encodings span {rank} of {self.width} directions; at least "
                f"{required} are required, {required - self.count} more: accumulate more captions"
            )
        values, vectors = self._spectrum
        values = values + ridge * values.mean()
        inverse = (vectors / values) @ vectors.mT
        inverse = (inverse + inverse.mT) / 2
        if not bool(values[0] > _rounding(values)) or not _is_positive_definite(inverse):
            raise SingularCovariance(
                f"{self.count} encodings span {rank} of {self.width} directions "
                f"({self.width - rank} missing), which ridge {ridge:g} does not make invertible: "
                "accumulate captions with other words, or give a larger ridge (1e-4 is usual)"
            )
        return inverse


def _rounding(values: Tensor) -> Tensor:
    """The eigenvalue below which float64 cannot tell it from zero (numpy's rule for ranks)."""
    return values[-1].abs() * values.numel() * torch.finfo(values.dtype).eps


def _is_positive_definite(matrix: Tensor) -> bool:
    _, info = torch.linalg.cholesky_ex(matrix)
    return bool(info == 0) and bool(torch.isfinite(matrix).all())


class CovarianceAccumulator:
    """Sums e eᵀ over a stream of encodings in float64.

    Args:
        width: d, the width of the encodings.
        device: where the sum is kept and added up; encodings are moved there.

    Raises:
        InvalidArgument: the width is below 1.
    """

    def __init__(self, width: int, *, device: torch.device | str = "cpu") -> None:
        if width < 1:
            raise InvalidArgument(f"width is {width}; encodings have at least 1 entry")
        self._sum = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._count = 0

    @property
    def width(self) -> int:
        """d, the width of the encodings."""
        return self._sum.shape[0]

    @property
    def count(self) -> int:
        """How many encodings were added so far."""
        return self._count

    @torch.no_grad()
    def add(self, encodings: Tensor) -> None:
        """Add the encodings of some captions, without padding rows.

        A refused call changes nothing, so that a long stream can go on.

        Args:
            encodings: [..., d], any floating-point type and device; every leading index counts.

        Raises:
            WrongShape: the last axis is not d.
            NotFinite: an entry is NaN or infinite.
        """
        require_axes(covariance=(self._sum, "d d"), encodings=(encodings, "... d"))
        require_finite(encodings=encodings)
        rows = encodings.detach().reshape(-1, self.width).to(self._sum)
        self._sum.addmm_(rows.mT, rows)
        self._count += rows.shape[0]

    def state(self) -> dict[str, Tensor]:
        """A copy of the running sum and count, to be stored and handed to `resume`."""
        return {"sum": self._sum.clone(), "count": torch.tensor(self._count, dtype=torch.int64)}

    @classmethod
    def resume(
        cls, state: dict[str, Tensor], *, device: torch.device | str = "cpu"
    ) -> CovarianceAccumulator:
        """Go on from a stored state: the result equals, bit for bit, never having stopped.

        Raises:
            InvalidArgument: the state lacks an entry, is not float64, or counts below 0.
            WrongShape: the sum is not square.
            NotFinite: the sum holds NaN or infinity.
        """
        if missing := {"sum", "count"} - state.keys():
            raise InvalidArgument(
                f"the state lacks {sorted(missing)} and has {sorted(state)}; give what state() made"
            )
        if state["count"].numel() != 1:
            raise WrongShape(
                f"count has shape {list(state['count'].shape)}; it is one number: "
                "give what state() made"
            )
        total, count = state["sum"], int(state["count"])
        Covariance(total, count)  # the same rules hold for the sum as for the mean
        accumulator = cls(total.shape[0], device=device)
        accumulator._sum.copy_(total)
        accumulator._count = count
        return accumulator

    def finish(self) -> Covariance:
        """The mean of e eᵀ over everything added; adding may go on afterwards.

        Raises:
            SingularCovariance: nothing was added.
        """
        if self._count == 0:
            raise SingularCovariance(
                f"0 encodings of width {self.width} were added; a covariance needs at least "
                f"{ENCODINGS_PER_DIRECTION} per direction: add the encodings of captions first"
            )
        mean = self._sum / self._count
        return Covariance((mean + mean.mT) / 2, self._count)
