"""The covariance beside a base model: `perfuse/covariance.safetensors` in its directory."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from perfuse.errors import BaseModelMismatch, DataLoss
from perfuse.method import Covariance

FILE = Path("perfuse") / "covariance.safetensors"
"""Where the asset lies, inside the base model's directory."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class CovarianceAsset:
    """C of one base model, with what it was made from.

    Attributes:
        covariance: C and the number of encodings behind it.
        ridge: relative ridge that is added before inverting.
        captions: how many captions were read.
        positions: "words" (first word through end of text) or "all" (start and padding too).
        fingerprint: the base model it belongs to.
    """

    covariance: Covariance
    ridge: float
    captions: int
    positions: str
    fingerprint: str
    _inverses: dict[tuple[str, torch.dtype], torch.Tensor] = field(
        default_factory=dict, init=False, repr=False
    )

    def inverse(
        self, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
    ) -> torch.Tensor:
        """C⁻¹ [d, d] with the ridge added, computed once in float64 and kept."""
        key = (str(device), dtype)
        if key not in self._inverses:
            # Two threads at once compute the same tensor twice and keep either.
            exact = self.covariance.inverse(self.ridge)
            self._inverses[key] = exact.to(device=device, dtype=dtype)
        return self._inverses[key]

    @cached_property
    def digest(self) -> str:
        """Identity of the asset's bytes, "sha256:..."."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The asset as a safetensors file; the same asset gives the same bytes."""
        metadata = {
            "captions": self.captions,
            "count": self.covariance.count,
            "fingerprint": self.fingerprint,
            "format": FORMAT,
            "positions": self.positions,
            "ridge": self.ridge,
        }
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
        data: bytes = save({"covariance": self.covariance.matrix.contiguous()}, {"perfuse": text})
        return data

    def write(self, directory: Path) -> Path:
        """Write the asset into a base model's directory, whole or not at all."""
        path = directory / FILE
        write_whole(path, self.to_bytes())
        return path

    @classmethod
    def find(cls, directory: Path, *, fingerprint: str, width: int) -> CovarianceAsset | None:
        """The asset of a base model, or None where it has not been prepared.

        Raises:
            DataLoss: the file is damaged.
            BaseModelMismatch: it belongs to other weights.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        remedy = f"run perfuse base prepare {directory} --captions FILE --restart"
        try:
            with safe_open(path, framework="pt", device="cpu") as handle:
                stated: dict[str, Any] = json.loads((handle.metadata() or {})["perfuse"])
                matrix = handle.get_tensor("covariance")
            if stated["format"] != FORMAT or matrix.shape != (width, width):
                raise ValueError(f"format {stated['format']}, shape {list(matrix.shape)}")
            asset = cls(
                covariance=Covariance(matrix, int(stated["count"])),
                ridge=float(stated["ridge"]),
                captions=int(stated["captions"]),
                positions=str(stated["positions"]),
                fingerprint=str(stated["fingerprint"]),
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataLoss(
                f"{path} is not a covariance of width {width} ({error}); {remedy}"
            ) from error
        if asset.fingerprint != fingerprint:
            raise BaseModelMismatch(
                f"{path} belongs to base model {asset.fingerprint}, and these weights are "
                f"{fingerprint}; {remedy}"
            )
        return asset


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a restart after a kill, sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
