"""One training run as a loop that can be stopped after any step and resumed bit for bit.

Every draw of step n comes from (seed, n) alone, so a checkpoint holds tensors and counters but no
generator's state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from perfuse import method
from perfuse.adapter.header import AdapterMetadata, Encoder, Layer
from perfuse.adapter.tensors import Adapter
from perfuse.attach import BaseModel, denoise
from perfuse.errors import TrainingDiverged
from perfuse.method import KeyLock
from perfuse_trainer.latents import PictureLatents
from perfuse_trainer.learning import Learning
from perfuse_trainer.settings import TrainingSettings
from perfuse_trainer.templates import TEMPLATES


@dataclass(frozen=True)
class Progress:
    """What one step did.

    Attributes:
        step: Steps done, from 1.
        loss: Of this step's batch.
        validation: Of the fixed batch, where this step ended with a validation.
        best: Whether that validation is the best so far.
    """

    step: int
    loss: float
    validation: float | None
    best: bool


@dataclass(frozen=True)
class _Batch:
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    templates: Tensor
    weight: Tensor | None


class TrainingLoop:
    """The optimisation of one concept on one base model.

    Args:
        base: The base model, prepared, and attached (`perfuse.attach.attach`) while steps run.
        latents: The training pictures, encoded.
        settings: Of the run.
        weight: Soft masks `[N, 1, h, w]` over latents, or None.

    Attributes:
        steps_done: Steps so far.
        curve: (step, validation loss) pairs, the first before any step.
    """

    def __init__(
        self,
        base: BaseModel,
        latents: PictureLatents,
        settings: TrainingSettings,
        weight: Tensor | None = None,
    ) -> None:
        self._base, self._latents, self._settings, self._weight = base, latents, settings, weight
        self._alphas = base.pipeline.scheduler.alphas_cumprod
        self._learning = Learning(base, settings, self._draw(0).templates)
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(self._learning.outputs()), "lr": settings.output_rate},
                {
                    "params": list(self._learning.embeddings.values()),
                    "lr": settings.embedding_rate,
                },
            ]
        )
        self._best: dict[str, Tensor] = {}
        self._best_step = 0
        self.steps_done = 0
        self.curve: list[tuple[int, float]] = []

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or patience has run out."""
        if self.steps_done >= self._settings.steps:
            return True
        patience = self._settings.patience
        if patience is None:
            return False
        return self.steps_done - self._best_step >= patience * self._settings.validate_every

    def step(self) -> Progress:
        """One optimiser step.

        Raises:
            TrainingDiverged: Loss or parameters are no longer finite.
        """
        settings = self._settings
        if not self.curve:
            self._validate()
        batch = self._draw(self.steps_done)
        loss = self._loss(batch, follow=True)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        value = float(loss.detach())
        self.steps_done += 1
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss of step {self.steps_done} is {value}; lower output_rate "
                f"({settings.output_rate:g}), or load the base model in float32"
            )
        validation, best = None, False
        if self.steps_done % settings.validate_every == 0 or self.steps_done == settings.steps:
            validation, best = self._validate()
        return Progress(self.steps_done, value, validation, best)

    def adapter(self, *, best: bool = True, dtype: str = "float16") -> Adapter:
        """The concept as it stands, or as it stood at the best validation.

        Args:
            best: Take the best checkpoint; the current parameters otherwise.
            dtype: Number type of the file's tensors.
        """
        state = self._best if best and self._best else self._learning.state()
        settings, base = self._settings, self._base
        summary: dict[str, str | int | float] = {
            "steps": self._best_step if best and self._best else self.steps_done,
            "pictures": self._latents.count,
            "seed": settings.seed,
        }
        if self.curve:
            summary["validation_start"] = round(self.curve[0][1], 6)
            summary["validation_best"] = round(min(value for _, value in self.curve), 6)
        return Adapter(
            metadata=AdapterMetadata(
                base_model=base.fingerprint,
                architecture=base.architecture,
                layers=tuple(Layer(layer.name, layer.width) for layer in base.layers),
                encoders=tuple(Encoder(encoder.name, encoder.width) for encoder in base.encoders),
                conditioning_width=base.conditioning_width,
                super_category=settings.super_category,
                placeholder=settings.placeholder,
                key_lock=settings.key_lock.value,
                bias=settings.render_bias,
                temperature=settings.render_temperature,
                dtype=dtype,
                training=summary,
            ),
            target_input=state["target_input"],
            super_category_encoding=state["super_category_encoding"],
            embeddings={
                encoder.name: state[f"embedding.{encoder.name}"] for encoder in base.encoders
            },
            value_output=state["value_output"],
            key_output=state["key_output"] if settings.key_lock is KeyLock.TRAINED_K else None,
        )

    def _draw(self, step: int) -> _Batch:
        settings = self._settings
        lot = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        return self._batch(
            lot,
            rows=torch.randint(self._latents.count, (settings.batch,), generator=lot),
            timesteps=torch.randint(len(self._alphas), (settings.batch,), generator=lot),
            templates=torch.randint(len(TEMPLATES), (settings.batch,), generator=lot),
            mirrored=torch.rand(settings.batch, generator=lot) < settings.flip,
        )

    def _validation_batch(self) -> _Batch:
        """The same rows, templates, timesteps and noise at every validation, evenly spread."""
        rows = torch.arange(self._settings.validation_rows)
        lot = torch.Generator().manual_seed(self._settings.seed + 7)
        return self._batch(
            lot,
            rows=rows % self._latents.count,
            timesteps=((rows + 0.5) / len(rows) * len(self._alphas)).long(),
            templates=rows % len(TEMPLATES),
            mirrored=torch.zeros(len(rows), dtype=torch.bool),
        )

    def _batch(
        self,
        lot: torch.Generator,
        *,
        rows: Tensor,
        timesteps: Tensor,
        templates: Tensor,
        mirrored: Tensor,
    ) -> _Batch:
        shape = (len(rows), *self._latents.mean.shape[2:])
        posterior, noise = torch.randn(shape, generator=lot), torch.randn(shape, generator=lot)
        device, weight = self._base.device, None
        if self._weight is not None:
            weight = self._weight[rows]
            weight = torch.where(mirrored[:, None, None, None], weight.flip(-1), weight).to(device)
        # Drawn on the CPU: the same run on any device sees the same draws.
        latents = self._latents.draw(rows.to(device), mirrored.to(device), posterior.to(device))
        return _Batch(latents, noise.to(device), timesteps.to(device), templates, weight)

    def _loss(self, batch: _Batch, *, follow: bool) -> Tensor:
        scale = self._alphas.to(batch.latents)[batch.timesteps][:, None, None, None]
        noisy = scale.sqrt() * batch.latents + (1 - scale).sqrt() * batch.noise
        conditioning = self._learning.condition(batch.templates, follow=follow)
        prediction = denoise(
            self._base, noisy.to(self._base.dtype), batch.timesteps, conditioning
        ).float()
        target = method.diffusion_target(
            self._base.prediction_type,
            batch.latents,
            batch.noise,
            self._alphas.to(batch.latents),
            batch.timesteps,
        )
        return method.masked_loss(prediction, target, batch.weight).mean()

    @torch.no_grad()
    def _validate(self) -> tuple[float, bool]:
        value = float(self._loss(self._validation_batch(), follow=False))
        best = math.isfinite(value) and all(value < other for _, other in self.curve)
        self.curve.append((self.steps_done, value))
        if best:
            self._best, self._best_step = self._learning.state(), self.steps_done
        return value, best

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors on the CPU."""
        state = {f"now/{name}": value for name, value in self._learning.state().items()}
        state |= {f"best/{name}": value for name, value in self._best.items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            for name, value in moments.items():
                state[f"optimiser/{index}/{name}"] = torch.as_tensor(value).detach().cpu().clone()
        state["curve"] = torch.tensor(self.curve, dtype=torch.float64).reshape(-1, 2)
        state["counters"] = torch.tensor([self.steps_done, self._best_step])
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()` of a run with the same base model, pictures and settings."""
        self._learning.load(_under(state, "now/"))
        self._best = _under(state, "best/")
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(state, "optimiser/").items():
            index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.curve = [(int(step), float(value)) for step, value in state["curve"].tolist()]
        self.steps_done, self._best_step = state["counters"].tolist()


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
