"""How concepts are learned: our method, with several runs in one pass, and two peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from bench.fidelity.curriculum import shown
from bench.fidelity.lora import Lora
from bench.trainer_peers import LeanTextualInversion
from perfuse.adapter.file import write_atomically
from perfuse.attach import BaseModel, attach
from perfuse.method import KeyLock
from perfuse_toybox.concepts import Concept
from perfuse_toybox.drawing import paint
from perfuse_trainer.learning.draws import Draws
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.masks import masks_for
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.pictures.images import TrainingPicture

OURS, INVERSION, LORA = "perfusion", "textual inversion", "LoRA"

PACK = 4
"""Runs in one pass: on two cores, 1.3 times as many an hour as one after another at batch 16."""

Made = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Lesson:
    """One way of learning any concept.

    Attributes:
        steps, batch: Of the optimiser.
        pictures: How many are shown.
        method: `OURS`, `INVERSION` or `LORA`.
        key_lock: Of ours: LOCAL or TRAINED_K.
        bias: Of the gate while ours is trained.
        mask: Of ours: a `MaskSource`.
        rate: The learning rate: of our target outputs (0: the product's), or a peer's.
        seed: Of all draws, the same for all methods.
    """

    steps: int
    batch: int
    pictures: int
    method: str = OURS
    key_lock: str = "LOCAL"
    bias: float = 0.75
    mask: str = "NONE"
    rate: float = 0.0
    seed: int = 1

    def settings(self, concept: Concept) -> TrainingSettings:
        """As the Trainer takes them; the product's defaults where nothing is said."""
        rate = {"output_rate": self.rate} if self.method == OURS and self.rate else {}
        return TrainingSettings(
            concept.super_category,
            **rate,
            placeholder=concept.name,
            key_lock=KeyLock(self.key_lock),
            steps=self.steps,
            batch=self.batch,
            bias=self.bias,
            seed=self.seed,
            validate_every=min(25, self.steps),
            # As many as the product has, but for the lessons of tests.
            validation_rows=min(32, 4 * self.batch),
        )

    def parts(self, base: BaseModel, concept: Concept) -> dict[str, Any]:
        """Everything that what is learned depends on, as JSON."""
        # Adapters are settled since decision 32; peers' lessons are what they were.
        made = {"adapter": "settled"} if self.method == OURS else {}
        return made | {
            "base": base.fingerprint,
            "covariance": base.covariance.digest if base.covariance else None,
            "concept": [concept.name, asdict(concept.figure)],
            "pictures": [asdict(picture) for picture in shown(concept, self.pictures)],
            "lesson": asdict(self),
        }


Job = tuple[Concept, Lesson]


def pixels_of(concept: Concept, count: int) -> Tensor:
    """What is shown, `[count, 3, 32, 32]` uint8."""
    painted = [torch.from_numpy(paint(picture)) for picture in shown(concept, count)]
    return torch.stack(painted).permute(0, 3, 1, 2).contiguous()


def learn_ours(
    base: BaseModel,
    jobs: Sequence[Job],
    checkpoint: Path,
    on_step: Callable[[int], None] = lambda done: None,
    checkpoint_every: int = 25,
) -> list[Made]:
    """Learn several concepts in one pass; killed at any moment and called again it goes on.

    Args:
        base: The base model.
        jobs: Concepts with lessons of equally many steps.
        checkpoint: Of the pack; its name says which jobs.
        on_step: Told the steps done.
        checkpoint_every: Steps between checkpoints.

    Returns:
        For each job the files of the best validation (`best`) and of the end (`last`), float32,
        as bytes; and the validation curve.
    """
    loops = [loop_of(base, concept, lesson) for concept, lesson in jobs]
    if checkpoint.exists():
        state = load_file(checkpoint)
        for index, loop in enumerate(loops):
            mark = f"{index}|"
            loop.load({k.removeprefix(mark): v for k, v in state.items() if k.startswith(mark)})
    with attach(base.unet):
        pack = Pack(base)
        while not all(loop.finished for loop in loops):
            for result in pack.step(loops):
                if isinstance(result, Exception):
                    raise result
            done = loops[0].steps_done
            if done % checkpoint_every == 0:
                states = {
                    f"{index}|{name}": value.contiguous()
                    for index, loop in enumerate(loops)
                    for name, value in loop.state().items()
                }
                write_atomically(checkpoint, save(states))
            on_step(done)
    return [_made(loop) for loop in loops]


def learn_peer(base: BaseModel, concept: Concept, lesson: Lesson, on_step: Any) -> Made:
    """Learn a concept by textual inversion or LoRA, on the draws that ours sees."""
    settings = lesson.settings(concept)
    draws = Draws(base, latents_of(base, concept, lesson), settings)
    learning = Learning(base, settings, draws.step(0).templates)
    peer: LeanTextualInversion | Lora
    if lesson.method == INVERSION:
        peer = LeanTextualInversion(base, learning, rate=lesson.rate)
    else:
        peer = Lora(base, learning, rate=lesson.rate, seed=lesson.seed)
    losses = []
    for step in range(lesson.steps):
        losses.append(float(peer.step(draws.step(step))))
        on_step(step + 1)
    tensors = peer.words if isinstance(peer, LeanTextualInversion) else peer.state()
    kept = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    return kept, {"losses": [round(loss, 5) for loss in losses]}


def loop_of(base: BaseModel, concept: Concept, lesson: Lesson) -> TrainingLoop:
    """The product's own loop, before its first step."""
    latents = latents_of(base, concept, lesson)
    weight = masks_for(
        base,
        _pictures(concept, lesson),
        latents.plain,
        concept.super_category,
        MaskSource(lesson.mask),
    )
    return TrainingLoop(base, latents, lesson.settings(concept), weight)


def latents_of(base: BaseModel, concept: Concept, lesson: Lesson) -> PictureLatents:
    """What is shown, encoded."""
    return PictureLatents.encode(base, _pictures(concept, lesson))


def _pictures(concept: Concept, lesson: Lesson) -> list[TrainingPicture]:
    pixels = pixels_of(concept, lesson.pictures)
    return [TrainingPicture(f"{index}.png", one, None) for index, one in enumerate(pixels)]


def _made(loop: TrainingLoop) -> Made:
    adapters = {
        "best": loop.adapter(),
        "last": loop.adapter(best=False),
        "unsettled": loop.adapter(settle=False),
    }
    files = {
        kept: torch.frombuffer(bytearray(adapter.to_bytes("float32")), dtype=torch.uint8)
        for kept, adapter in adapters.items()
    }
    return files, {"curve": loop.curve}
