"""One run in a worker's hands: opened from its files, stepped by the pack, told and kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image
from safetensors.torch import load, save

from perfuse.adapter.header import digest as digest_of
from perfuse.attach import BaseModel
from perfuse.errors import BaseModelMismatch, FailedPrecondition, NotFound
from perfuse.method import KeyLock
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.loop import Progress, TrainingLoop
from perfuse_trainer.learning.masks import masks_for
from perfuse_trainer.pictures.images import TrainingPicture
from perfuse_trainer.resources import EventKind
from perfuse_trainer.runs.claims import Claim, Claims, LeaseLost
from perfuse_trainer.runs.events import News
from perfuse_trainer.runs.run_settings import RunSettings
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.vault import Vault
from perfuse_trainer.working.previews import ImageEncoder, Previews, cosine, jpeg

TOLD_EVERY = 0.5
"""Seconds between two events of progress."""

_log = logging.getLogger(__name__)


class Member:
    """A run that is being trained.

    Args:
        base: prepared, and attached.
        claim: on the run.
        claims: to write under it.
        vault: of the run's files.
        clipseg: directory of a CLIPSeg checkpoint, or None.
        encoder: for the similarity curve, or None.

    Raises:
        FailedPrecondition, BaseModelMismatch, PictureRefused, PromptRefused: the run cannot be
            trained here.
        Unavailable, DataLoss: its files cannot be read.
    """

    def __init__(
        self,
        base: BaseModel,
        claim: Claim,
        claims: Claims,
        vault: Vault,
        *,
        clipseg: Path | None = None,
        encoder: ImageEncoder | None = None,
    ) -> None:
        self.claim = claim
        self._claims, self._vault, self._encoder = claims, vault, encoder
        self._settings = settings = RunSettings.from_json(claim.settings)
        if settings.fingerprint != base.fingerprint:
            raise BaseModelMismatch(
                f"the run is on baseModels/{claim.base_model_id} with fingerprint "
                f"{settings.fingerprint}; the Trainer's copy of it has {base.fingerprint}. Install "
                "the base model that is registered, or register the one that is installed"
            )
        training = replace(settings.training, key_lock=KeyLock(claim.key_lock))
        self._previews = None
        if settings.previews is not None:
            self._previews = Previews(base, settings.previews, training.placeholder, training.seed)
        pictures = self._pictures()
        latents = PictureLatents.encode(base, pictures)
        try:
            weight = masks_for(
                base,
                pictures,
                latents.plain,
                training.super_category,
                settings.mask_source,
                clipseg=clipseg,
            )
        except (NotFound, FailedPrecondition) as error:
            # Of the operator's checkpoint, whose place is no business of whoever queued the run.
            _log.error("the CLIPSeg checkpoint cannot be used: %s", error)
            raise FailedPrecondition(
                "this Trainer's CLIPSeg checkpoint cannot be used, as its log tells. Choose "
                "CROSS_ATTENTION, or ask its operator"
            ) from None
        self.loop = TrainingLoop(base, latents, training, weight)
        if claim.checkpoint is not None:
            self.loop.load(load(vault.get(claim.tenant, claim.checkpoint)))
        self._steps = training.steps
        self._kept_step = self.loop.steps_done
        self._told_step = self.loop.steps_done
        self._told = time.monotonic()
        self._looks = None
        if encoder is not None and self._previews is not None:
            self._looks = encoder.encode([_image(picture) for picture in pictures])

    def note(self, done: Progress) -> None:
        """Tell what a step did: validations at once, progress now and then.

        Raises:
            LeaseLost: the run is another's.
            Unavailable: the database does not answer.
        """
        news = []
        if done.validation is not None:
            body = {"step": done.step, "loss": done.validation, "best": done.best}
            news.append(News(EventKind.VALIDATION, body))
        moment = time.monotonic()
        if news or self.loop.finished or moment - self._told >= TOLD_EVERY:
            rate = (done.step - self._told_step) / max(moment - self._told, 1e-6)
            news.append(
                News(
                    EventKind.PROGRESS,
                    {
                        "step": done.step,
                        "steps": self._steps,
                        "loss": done.loss,
                        "steps_per_second": round(rate, 3),
                        "remaining_seconds": round((self._steps - done.step) / max(rate, 1e-6), 1),
                    },
                )
            )
            self._claims.tell(self.claim, news, step=done.step, loss=done.loss)
            self._told, self._told_step = moment, done.step

    def preview(self) -> None:
        """Render and tell previews, where they are due.

        Raises:
            LeaseLost, Unavailable: as `note`.
        """
        step = self.loop.steps_done
        if self._previews is None or not (self._previews.due(step) or self.loop.finished):
            return
        pictures = self._previews.render(self.loop.adapter(best=False))
        news = []
        for prompt, picture in zip(self._previews.prompts, pictures, strict=True):
            blob = self._put(jpeg(picture))
            news.append(News(EventKind.PREVIEW, {"step": step, "prompt": prompt}, blob))
        if self._encoder is not None and self._looks is not None:
            alike = cosine(self._encoder.encode(pictures), self._looks)
            body = {"step": step, "cosine": round(alike, 4)}
            news.append(News(EventKind.SIMILARITY, body))
        with self._unless_lost(*(each.blob for each in news)):
            self._claims.tell(self.claim, news)
        # Pictures take their time, which is not the steps'.
        self._told, self._told_step = time.monotonic(), step

    def keep(self) -> None:
        """Make the present state the one to go on from.

        Raises:
            LeaseLost, Unavailable: as `note`.
        """
        step = self.loop.steps_done
        if step == self._kept_step:
            return
        blob = self._put(save(self.loop.state()))
        with self._unless_lost(blob):
            before = self._claims.checkpoint(self.claim, blob, step)
        self._kept_step = step
        self._vault.drop(self.claim.tenant, [before])

    def finish(self) -> None:
        """Hand the adapter over for publication.

        Raises:
            LeaseLost, Unavailable: as `note`.
        """
        data = self.loop.adapter().to_bytes()
        blob = self._put(data)
        with self._unless_lost(blob):
            self._claims.finish(self.claim, blob, digest_of(data), ())
        _log.info("run %s is done", self.claim.name)

    def _put(self, data: bytes) -> str:
        return self._vault.put(self.claim.tenant, data)

    @contextmanager
    def _unless_lost(self, *blobs: str | None) -> Iterator[None]:
        """Remove files at once that no row will name, since the run is another's or erased."""
        try:
            yield
        except LeaseLost:
            self._vault.drop(self.claim.tenant, blobs)
            raise

    def _pictures(self) -> list[TrainingPicture]:
        if self.claim.image_set is None:
            raise FailedPrecondition("the run's image set is gone. Queue the run anew with another")
        return kept_pictures(self._claims.database, self._vault, self.claim.image_set)


def _image(picture: TrainingPicture) -> Image.Image:
    return Image.fromarray(picture.pixels.permute(1, 2, 0).numpy())
