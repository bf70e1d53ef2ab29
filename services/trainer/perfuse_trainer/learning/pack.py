"""Many training runs on one resident base model, in one forward and backward pass.

Rows of different runs meet in no operation of the text encoder or the denoiser: only their own
conditioning and latents reach a row's prediction. So the gradient of the sum of all losses with
respect to one run's parameters is that of its own loss, and a run that leaves the finite numbers
takes its own rows along and no others. What differs from training alone is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from perfuse import method
from perfuse.attach import BaseModel, denoise
from perfuse.errors import FailedPrecondition, InvalidArgument, NotFinite, TrainingDiverged
from perfuse.method.operands import result_dtype
from perfuse_trainer.learning.conditioning import condition
from perfuse_trainer.learning.draws import Batch
from perfuse_trainer.learning.learning import Learning

if TYPE_CHECKING:
    from perfuse_trainer.learning.loop import Progress, TrainingLoop


class Pack:
    """The shared steps of training runs on one base model.

    It keeps nothing between steps: runs join and leave by being given or not.

    Args:
        base: The base model, prepared, and attached (`perfuse.attach.attach`) while steps run.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        alphas = base.pipeline.scheduler.alphas_cumprod.to(base.device)
        self._alphas = alphas.to(result_dtype(base.layers[0].value_weight))

    def step(self, loops: Sequence[TrainingLoop]) -> list[Progress | Exception]:
        """One optimiser step of every run, with the validations that fall due.

        A run that fails is left as it was before the step, and the others go on: what one run
        brings, its draws, masks, parameters or loss, fails that run alone. Whatever is raised
        instead leaves every run as it was, so that a caller may try again with fewer.

        Args:
            loops: Runs on this base, none twice; each with batch, key lock, masks and settings of
                its own.

        Returns:
            For each run in order what its step did, or why it failed: `TrainingDiverged` where
            its loss, gradient or validation is not finite.

        Raises:
            torch.OutOfMemoryError: The device's memory does not hold the pack.
            FailedPrecondition: The base is not attached.
            InvalidArgument: A run is given twice.
        """
        if len({id(loop) for loop in loops}) < len(loops):
            raise InvalidArgument("a run is given twice; a step takes each run once")
        ways_back = [loop.mark() for loop in loops]
        results: dict[int, Progress | Exception] = {}
        try:
            for group in self._groups(loops, results):
                for loop, result in zip(group, self._advance(group), strict=True):
                    results[id(loop)] = result
        except BaseException:
            for back in ways_back:
                back()
            raise
        for loop, back in zip(loops, ways_back, strict=True):
            if isinstance(results[id(loop)], Exception):
                back()
        return [results[id(loop)] for loop in loops]

    def _groups(
        self, loops: Sequence[TrainingLoop], refused: dict[int, Progress | Exception]
    ) -> list[list[TrainingLoop]]:
        """Runs that fit into one tensor: those with latents of the same shape."""
        groups: dict[tuple[int, ...], list[TrainingLoop]] = {}
        for loop in loops:
            if loop.base is not self._base:
                refused[id(loop)] = InvalidArgument(
                    f"the run is on base model {loop.base.fingerprint} of another loading and the "
                    "pack on its own; pack runs that were made with the same BaseModel"
                )
            elif loop.finished:
                refused[id(loop)] = FailedPrecondition(
                    f"the run is finished after {loop.steps_done} steps; take its adapter"
                )
            else:
                groups.setdefault(loop.latent_shape, []).append(loop)
        return list(groups.values())

    def _advance(self, loops: Sequence[TrainingLoop]) -> list[Progress | Exception]:
        try:
            for loop in loops:
                if not loop.curve:
                    loop.note_validation(self.validation(loop))
            losses, gradients, inputs = self._gradients(loops)
        except (torch.OutOfMemoryError, MemoryError, FailedPrecondition):
            raise
        except Exception as error:
            if len(loops) > 1:
                # Whose fault it is shows when each goes alone.
                return [self._advance([loop])[0] for loop in loops]
            if isinstance(error, NotFinite):
                return [_diverged(loops[0], f"reads what is not finite ({error})")]
            return [error]
        finite = _finite(gradients)
        results: list[Progress | Exception] = []
        for index, loop in enumerate(loops):
            try:
                if not math.isfinite(losses[index]):
                    raise _diverged(loop, f"has the loss {losses[index]}")
                if not finite[index]:
                    raise _diverged(loop, "has a gradient that is not finite")
                loop.advance(gradients[index], inputs[index])
                validation = self.validation(loop) if loop.validation_due else None
                results.append(loop.report(losses[index], validation))
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:
                results.append(error)
        return results

    def _gradients(
        self, loops: Sequence[TrainingLoop]
    ) -> tuple[list[float], list[dict[Tensor, Tensor]], tuple[Tensor, ...]]:
        """Of each run its loss, the gradient of each parameter and the target input to come."""
        losses, inputs = self._losses(
            [(loop.learning, loop.batch()) for loop in loops], follow=True
        )
        parameters = [list(loop.learning.parameters()) for loop in loops]
        found = iter(torch.autograd.grad(losses.sum(), [one for own in parameters for one in own]))
        gradients: list[dict[Tensor, Tensor]] = [
            {parameter: next(found) for parameter in own} for own in parameters
        ]
        # A GPU is still at it: only reading the losses waits.
        for loop in loops:
            loop.look_ahead()
        return losses.detach().tolist(), gradients, inputs

    @torch.no_grad()
    def validation(self, loop: TrainingLoop) -> float:
        """The loss of a run's validation rows as it stands; changes nothing of it.

        Runs are validated one by one: their rows fill a batch as they are, and what a validation
        takes of the device's memory does not grow with the pack.
        """
        losses, _ = self._losses([(loop.learning, loop.validation_batch())], follow=False)
        value = float(losses[0])
        if not math.isfinite(value):
            raise _diverged(loop, f"has the validation loss {value}")
        return value

    def _losses(
        self, parts: Sequence[tuple[Learning, Batch]], *, follow: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Each part's mean loss, [K], and the target inputs that its edits used."""
        batches = [batch for _, batch in parts]
        latents = torch.cat([batch.latents for batch in batches])
        noise = torch.cat([batch.noise for batch in batches])
        timesteps = torch.cat([batch.timesteps for batch in batches])
        scale = self._alphas[timesteps][:, None, None, None]
        noisy = scale.sqrt() * latents + (1 - scale).sqrt() * noise
        conditioning, inputs = condition(
            self._base,
            [(learning, batch.templates) for learning, batch in parts],
            follow=follow,
        )
        prediction = denoise(self._base, noisy.to(self._base.dtype), timesteps, conditioning)
        target = method.diffusion_target(
            self._base.prediction_type, latents, noise, self._alphas, timesteps
        )
        rows = [len(batch.timesteps) for batch in batches]
        losses = [
            method.masked_loss(ours, theirs, batch.weight).mean()
            for ours, theirs, batch in zip(
                prediction.split(rows), target.split(rows), batches, strict=True
            )
        ]
        return torch.stack(losses), inputs


def _finite(gradients: Sequence[dict[Tensor, Tensor]]) -> list[bool]:
    """Whether all of a run's gradients are finite; asks the device once for all runs."""
    norms = torch._foreach_norm([one for own in gradients for one in own.values()])
    flags = iter(torch.stack(norms).isfinite().tolist())
    return [all(list(islice(flags, len(own)))) for own in gradients]


def _diverged(loop: TrainingLoop, what: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"step {loop.steps_done + 1} {what}; lower output_rate "
        f"({loop.learning.settings.output_rate:g}) and embedding_rate "
        f"({loop.learning.settings.embedding_rate:g}), or load the base model in float32"
    )
