"""A whole run on this machine: from pictures to an adapter, with a checkpoint on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from perfuse.adapter.file import write_atomically
from perfuse.adapter.tensors import Adapter
from perfuse.attach import BaseModel, attach, is_attached
from perfuse.errors import FailedPrecondition
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.loop import Progress, TrainingLoop
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.masks import masks_for
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.pictures.images import TrainingPicture


def train(
    base: BaseModel,
    pictures: Sequence[TrainingPicture],
    settings: TrainingSettings,
    *,
    mask_source: MaskSource = MaskSource.NONE,
    clipseg: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Adapter:
    """Learn one concept; with a checkpoint, killed at any moment and called again it goes on.

    The result of a resumed run is that of an undisturbed one, bit for bit, on the same machine
    with the same number of threads.

    Args:
        base: The base model, prepared.
        pictures: 1 to 64 training pictures.
        settings: Of the run.
        mask_source: Where soft masks over the subject come from.
        clipseg: Local directory of a CLIPSeg checkpoint, for `MaskSource.CLIPSEG`.
        checkpoint: Where the run keeps its state; removed by nobody, so that a finished run
            called again ends at once.
        checkpoint_every: Steps between checkpoints.
        on_progress: Called after every step.

    Returns:
        The adapter of the best validation.

    Raises:
        FailedPrecondition: The base has no covariance, or the checkpoint is of another run.
        TrainingDiverged: The run left the finite numbers.
        PictureRefused: A mask source finds nothing to mask.
    """
    latents = PictureLatents.encode(base, pictures)
    weight = masks_for(
        base, pictures, latents.plain, settings.super_category, mask_source, clipseg=clipseg
    )
    loop = TrainingLoop(base, latents, settings, weight)
    identity = _identity(base, pictures, settings, mask_source)
    if checkpoint is not None and checkpoint.exists():
        _load(loop, checkpoint, identity)
    attachment = None if is_attached(base.unet) else attach(base.unet)
    try:
        while not loop.finished:
            progress = loop.step()
            if checkpoint is not None and (progress.step % checkpoint_every == 0 or loop.finished):
                write_atomically(checkpoint, save(loop.state(), {"run": identity}))
            on_progress(progress)
    finally:
        if attachment is not None:
            attachment.detach()
    return loop.adapter()


def _identity(
    base: BaseModel,
    pictures: Sequence[TrainingPicture],
    settings: TrainingSettings,
    mask_source: MaskSource,
) -> str:
    """What a checkpoint must have been made from, to be gone on from."""
    digests = []
    for picture in pictures:
        data = hashlib.sha256(picture.pixels.numpy().tobytes())
        if picture.mask is not None:
            data.update(picture.mask.numpy().tobytes())
        digests.append(data.hexdigest())
    return json.dumps(
        {
            "base_model": base.fingerprint,
            "pictures": digests,
            "settings": asdict(settings),
            "mask_source": mask_source.value,
        },
        sort_keys=True,
    )


def _load(loop: TrainingLoop, checkpoint: Path, identity: str) -> None:
    try:
        with safe_open(str(checkpoint), framework="pt") as file:
            stored = (file.metadata() or {}).get("run")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FailedPrecondition(
            f"the checkpoint {checkpoint} cannot be read ({error}); remove it to begin again"
        ) from error
    if stored != identity:
        raise FailedPrecondition(
            f"the checkpoint {checkpoint} belongs to a run with another base model, other pictures "
            "or other settings; remove it, or name another file"
        )
    loop.load(state)
