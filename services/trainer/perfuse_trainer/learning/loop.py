"""One training run as a loop that can be stopped after any step and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perfuse.adapter.header import AdapterMetadata, Encoder, Layer
from perfuse.adapter.tensors import Adapter
from perfuse.attach import BaseModel
from perfuse.method import KeyLock
from perfuse_trainer.learning.draws import Batch, Draws
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.settling import settled
from perfuse_trainer.learning.summary import training_summary


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


class TrainingLoop:
    """The optimisation of one concept on one base model.

    `step` goes alone; a `Pack` steps many loops of one base together through the methods from
    `batch` to `mark`, which only it calls.

    Args:
        base: The base model, prepared, and attached (`perfuse.attach.attach`) while steps run.
        latents: The training pictures, encoded.
        settings: Of the run.
        weight: Soft masks `[N, 1, h, w]` over latents, or None.

    Attributes:
        base: As given.
        learning: What is learned.
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
        self.base, self._latents, self._settings = base, latents, settings
        self._draws = Draws(base, latents, settings, weight)
        self.learning = Learning(base, settings, self._draws.step(0).templates)
        embeddings = list(self.learning.embeddings.values())
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(self.learning.outputs()), "lr": settings.output_rate},
                {"params": embeddings, "lr": settings.embedding_rate},
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
        """One optimiser step, with the validation that falls due; a `Pack` of this run alone.

        Whatever is raised, the run is as it was before the step.

        Raises:
            TrainingDiverged: Loss, gradient or validation is not finite.
            FailedPrecondition: The run is finished, or the base is not attached.
        """
        (result,) = Pack(self.base).step([self])
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, h, w); runs that share a pass have the same."""
        return tuple(self._latents.mean.shape[2:])

    @property
    def validation_due(self) -> bool:
        """Whether the steps done end with a validation."""
        done = self.steps_done
        return done % self._settings.validate_every == 0 or done == self._settings.steps

    def batch(self) -> Batch:
        """The rows of the next step."""
        return self._draws.step(self.steps_done)

    def look_ahead(self) -> None:
        """Draw the rows after those of the next step already."""
        self._draws.look_ahead(self.steps_done + 1)

    def validation_batch(self) -> Batch:
        """The rows of every validation."""
        return self._draws.validation()

    def advance(self, gradients: Mapping[Tensor, Tensor], target_input: Tensor) -> None:
        """Step the optimiser.

        Args:
            gradients: Of each trained parameter.
            target_input: i* after this step's batch.
        """
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.learning.target_input = target_input
        self.steps_done += 1

    def note_validation(self, value: float) -> bool:
        """Add a validation after the steps done to the curve; whether it is the best so far."""
        best = all(value < other for _, other in self.curve)
        self.curve.append((self.steps_done, value))
        if best:
            self._best, self._best_step = self.learning.state(), self.steps_done
        return best

    def report(self, loss: float, validation: float | None) -> Progress:
        """What the step just done did; notes its validation where there was one."""
        best = validation is not None and self.note_validation(validation)
        return Progress(self.steps_done, loss, validation, best)

    def mark(self) -> Callable[[], None]:
        """A way back to the present state; going it takes no memory of the device."""
        parameters = {one: one.detach().clone() for one in self.learning.parameters()}
        moments = {
            parameter: {name: torch.as_tensor(value).clone() for name, value in own.items()}
            for parameter, own in self._optimiser.state.items()
        }
        counters = self.steps_done, self._best_step, self._best, self.learning.target_input
        points = len(self.curve)

        @torch.no_grad()
        def back() -> None:
            for parameter, value in parameters.items():
                parameter.copy_(value)
                parameter.grad = None
            self._optimiser.state.clear()
            self._optimiser.state.update(moments)
            self.steps_done, self._best_step, self._best, self.learning.target_input = counters
            del self.curve[points:]

        return back

    def adapter(self, *, best: bool = True, settle: bool = True, dtype: str = "float16") -> Adapter:
        """The concept as it stands, or as it stood at the best validation.

        Args:
            best: Take the best checkpoint; the current parameters otherwise.
            settle: Move the target input to the concept's encoding (`settling`); without, it is the
                paper's running mean.
            dtype: Number type of the file's tensors.
        """
        state = self._best if best and self._best else self.learning.state()
        if settle:
            state = settled(self.base, self.learning, state)
        settings, base = self._settings, self.base
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
                training=training_summary(
                    settings,
                    steps=self._best_step if best and self._best else self.steps_done,
                    pictures=self._latents.count,
                    curve=self.curve,
                ),
            ),
            target_input=state["target_input"],
            super_category_encoding=state["super_category_encoding"],
            embeddings={
                encoder.name: state[f"embedding.{encoder.name}"] for encoder in base.encoders
            },
            value_output=state["value_output"],
            key_output=state["key_output"] if settings.key_lock is KeyLock.TRAINED_K else None,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors on the CPU."""
        state = {f"now/{name}": value for name, value in self.learning.state().items()}
        state |= {f"best/{name}": value for name, value in self._best.items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            for name, value in moments.items():
                state[f"optimiser/{index}/{name}"] = torch.as_tensor(value).detach().cpu().clone()
        state["curve"] = torch.tensor(self.curve, dtype=torch.float64).reshape(-1, 2)
        state["counters"] = torch.tensor([self.steps_done, self._best_step])
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()` of a run with the same base model, pictures and settings."""
        self.learning.load(_under(state, "now/"))
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
