"""Preparing a base model: its covariance from many captions, streamed and resumable.

The state on disk is the running sum and the place in the captions file, always at the end of a
batch. Batches are cut by position in the file alone, so that a run that was killed and started
again adds up the same batches in the same order and writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from perfuse.attach.base_model import BaseModel
from perfuse.attach.covariance_asset import FILE, CovarianceAsset, write_whole
from perfuse.attach.encoding import encode_tokens, tokenise
from perfuse.attach.prompt import plain
from perfuse.attach.tokens import Tokens
from perfuse.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SingularCovariance,
)
from perfuse.method import Covariance, CovarianceAccumulator
from perfuse.method.covariance import ENCODINGS_PER_DIRECTION

STATE = FILE.with_name("covariance.partial.safetensors")
"""Where an unfinished preparation keeps its state, inside the base model's directory."""

POSITIONS = ("words", "all")
CHECKPOINT_SECONDS = 10.0

Progress = Callable[[int, int], None]
"""Called after every batch with the captions read so far and in all."""


@dataclass(frozen=True)
class _Captions:
    """A captions file: one caption a line, UTF-8; blank lines do not count."""

    path: Path
    digest: str
    count: int

    @classmethod
    def survey(cls, path: Path) -> _Captions:
        """Read the file once for its digest and its number of captions."""
        if not path.is_file():
            raise NotFound(f"{path} is not a file; give a text file with one caption a line")
        state, count = hashlib.sha256(), 0
        with path.open("rb") as handle:
            for line in handle:
                state.update(line)
                count += bool(line.strip())
        if not count:
            raise InvalidArgument(f"{path} holds no caption; write one a line")
        return cls(path, "sha256:" + state.hexdigest(), count)

    def batches(self, size: int, offset: int) -> Iterator[tuple[list[str], int]]:
        """Batches of captions from a byte offset on, each with the offset of its end."""
        with self.path.open("rb") as handle:
            handle.seek(offset)
            batch: list[str] = []
            while line := handle.readline():
                if line.strip():
                    batch.append(self._text(line, handle.tell()))
                if len(batch) == size:
                    yield batch, handle.tell()
                    batch = []
            if batch:
                yield batch, handle.tell()

    def _text(self, line: bytes, end: int) -> str:
        try:
            return line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"{self.path} is not UTF-8 in the line that ends at byte {end} ({error.reason}); "
                "convert the file"
            ) from error


def prepare(
    directory: str | Path,
    captions: str | Path,
    *,
    positions: str = "words",
    ridge: float = 1e-4,
    batch: int = 64,
    device: str | torch.device = "cpu",
    restart: bool = False,
    progress: Progress | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> CovarianceAsset:
    """Compute a base model's covariance (paper Sec. 3, App. C) and write it beside the weights.

    Called again after an interruption, it goes on where it stopped.

    Args:
        directory: the base model.
        captions: text file, one caption a line; the paper uses 100 000. Captions too long for
            the encoder are cut off, as diffusers cuts prompts.
        positions: "words", from the first word through end of text; or "all".
        ridge: relative ridge, times the mean eigenvalue, added before inverting.
        batch: captions encoded at once.
        device: where the text encoders run.
        restart: forget an unfinished preparation, and replace a finished one.
        progress: told after every batch.
        checkpoint_seconds: least time between two states on disk.

    Raises:
        NotFound, BaseModelUnsuitable: as `BaseModel.load`; or there is no captions file.
        InvalidArgument: no captions, not UTF-8, or a setting out of range.
        FailedPrecondition: the base is prepared already, or a preparation with other captions or
            settings is unfinished.
        SingularCovariance: too few captions; the message says how many are missing.
        DataLoss: the state on disk is damaged.
    """
    _check_settings(positions, ridge, batch)
    home = Path(directory)
    source = _Captions.survey(Path(captions))
    base = BaseModel.load(home, device=device, with_covariance=False)
    if (home / FILE).exists() and not restart:
        raise FailedPrecondition(
            f"{home / FILE} exists; concepts were perhaps trained with it. To replace it, say "
            "--restart"
        )
    identity = {
        "batch": batch,
        "captions": source.digest,
        "fingerprint": base.fingerprint,
        "positions": positions,
    }
    if restart:
        (home / STATE).unlink(missing_ok=True)
    sums, done, offset = _resume(home, identity, base.conditioning_width)
    saved, end = time.monotonic(), offset
    for texts, end in source.batches(batch, offset):
        sums.add(_encodings(base, texts, positions))
        done += len(texts)
        if time.monotonic() - saved >= checkpoint_seconds:
            _save(home, sums, identity | {"done": done, "offset": end})
            saved = time.monotonic()
        if progress:
            progress(done, source.count)
    # Kept until the asset is written: if only the ridge is refused, another one costs no reading.
    _save(home, sums, identity | {"done": done, "offset": end})
    covariance = sums.finish()
    _judge(covariance, ridge, done, home / STATE)
    asset = CovarianceAsset(covariance, ridge, done, positions, base.fingerprint)
    asset.write(home)
    (home / STATE).unlink()
    return asset


@torch.no_grad()
def _encodings(base: BaseModel, captions: list[str], positions: str) -> torch.Tensor:
    """The encodings [N, d] that count, of one batch."""
    prompts = [tokenise(base, plain(caption), truncate=True) for caption in captions]
    if positions == "all":
        return encode_tokens(base, prompts).encodings.flatten(0, 1)
    # The encoders are causal: what follows the longest caption's end changes nothing before it.
    longest = max(prompt.end_of_text for prompt in prompts) + 1
    cut = [_cut(prompt, longest) for prompt in prompts]
    encodings = encode_tokens(base, cut).encodings
    ends = torch.tensor([prompt.end_of_text for prompt in prompts], device=encodings.device)
    places = torch.arange(longest, device=encodings.device)
    return encodings[(places > 0) & (places <= ends[:, None])]


def _cut(prompt: Tokens, length: int) -> Tokens:
    return replace(prompt, ids=tuple(row[:length] for row in prompt.ids))


def _check_settings(positions: str, ridge: float, batch: int) -> None:
    if positions not in POSITIONS:
        raise InvalidArgument(f"positions is {positions!r}; it must be {' or '.join(POSITIONS)}")
    if not (math.isfinite(ridge) and ridge >= 0):
        raise InvalidArgument(f"ridge is {ridge}; it must be a finite number of at least 0")
    if batch < 1:
        raise InvalidArgument(f"batch is {batch}; at least 1 caption is encoded at once")


def _judge(covariance: Covariance, ridge: float, captions: int, state: Path) -> None:
    """Refuse a covariance that cannot be inverted, counting captions rather than encodings."""
    rank = covariance.rank()
    # Where every encoding is a direction of its own, more of them would reach further still.
    reach = covariance.width if rank == covariance.count else rank
    required = ENCODINGS_PER_DIRECTION * reach
    if covariance.count < required:
        state.unlink()
        missing = math.ceil((required - covariance.count) * captions / covariance.count)
        raise SingularCovariance(
            f"{captions} captions give {covariance.count} encodings, which span {rank} of "
            f"{covariance.width} directions; at least {required} are required, about {missing} "
            "captions more (the paper uses 100000)"
        )
    covariance.inverse(ridge)


def _resume(
    home: Path, identity: dict[str, Any], width: int
) -> tuple[CovarianceAccumulator, int, int]:
    """The running sum, the captions behind it, and the byte offset to go on from."""
    path = home / STATE
    if not path.is_file():
        return CovarianceAccumulator(width), 0, 0
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            stated: dict[str, Any] = json.loads((handle.metadata() or {})["perfuse"])
            state = {name: handle.get_tensor(name) for name in ("sum", "count")}
        done, offset = int(stated.pop("done")), int(stated.pop("offset"))
        sums = CovarianceAccumulator.resume(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataLoss(f"{path} is damaged ({error}); say --restart to begin again") from error
    if stated != identity:
        other = sorted(key for key in identity if stated.get(key) != identity[key])
        raise FailedPrecondition(
            f"an unfinished preparation in {path} differs in {', '.join(other)}; repeat it with "
            "the same, or say --restart to begin again"
        )
    return sums, done, offset


def _save(home: Path, sums: CovarianceAccumulator, place: dict[str, Any]) -> None:
    text = json.dumps(place, sort_keys=True, separators=(",", ":"))
    write_whole(home / STATE, save(sums.state(), {"perfuse": text}))
