"""A way of learning and rendering that a trial compares with others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from perfuse_trainer.learning.settings import TrainingSettings


@dataclass(frozen=True)
class Learnt:
    """How a concept is learned; the defaults are the product's.

    Attributes:
        gradient: Through the target input i*: `NONE`; `WHOLE`, as if i* were this batch's encoding
            (as the running mean passes it on, it would be a hundredth of that).
        counted: Positions that count in C: `WORDS`, from the first word through end of text;
            `ALL`, start and padding too; `NO_END`, words alone.
        outputs: o*_V for each `PROJECTION`, or for each of its `POSITION`s.
        decay: Of the running mean that i* is.
        places: Where the edit acts meanwhile, as `Way.places`.
        embedding_rate: Learning rate of the word embedding.
        steps, output_rate: Of the lesson, where they are not the form's (0).
        copies: Of the concept's word meanwhile, as `Way.copies`.
    """

    gradient: str = "NONE"
    counted: str = "WORDS"
    outputs: str = "PROJECTION"
    decay: float = 0.99
    places: str = "ALL"
    embedding_rate: float = TrainingSettings.embedding_rate
    steps: int = 0
    output_rate: float = 0.0
    copies: int = 1


@dataclass(frozen=True)
class Way:
    """How a concept is learned and rendered; the defaults are the product's.

    Attributes:
        learnt: See there.
        key_lock: LOCAL or GLOBAL.
        temperature: Of the gate.
        keys: Of GLOBAL: the super-category prompt's own (`PLAIN`), or edited (`EDITED`), by the
            similarity of its own encodings.
        places: Where the edit acts: from the concept's word through the end of the text (`NAMED`);
            `ALL`; `NOT_START`; `WORDS`, not at padding either; `CONCEPT`, at the concept's word
            alone.
        word: The gate at the concept's own word: as its similarity has it (`MEASURED`); as if that
            were 1 (`OPEN`); or everywhere by the similarity as a share of that word's (`RELATIVE`).
        context: What the concept's input is taken out of: the encodings of the prompt with its own
            word (`OWN`); or nothing is, and its output less the super-category's is added to those
            of the prompt with the super-category's word (`SUPER`), which then are the keys' too.
            That at the concept's word alone, the product's form elsewhere (`SLOT`); or elsewhere
            the two prompts mixed by the gate for s = 1 (`MIXED`), so that a shut gate leaves the
            super-category's prompt.
        target: The target input: settled at the concept's encoding in the templates (`SETTLED`), or
            in prompts that name it later as well (`CARRIED`); or training's `RUNNING_MEAN`.
        tail: Whether the gate keeps its tail; without, it is 0 at s = 0 and 1 at s = 1.
        remainder: What stands where a gate is not open, a `Remainder`.
        copies: Of the concept's word among the keys and values, in the place of padding: as if the
            logarithm of it were added to the word's attention logits.
    """

    learnt: Learnt = Learnt()
    key_lock: str = "LOCAL"
    temperature: float = 0.15
    keys: str = "PLAIN"
    places: str = "NAMED"
    word: str = "MEASURED"
    context: str = "OWN"
    target: str = "SETTLED"
    tail: bool = True
    remainder: str = "SUPER_CATEGORY"
    copies: int = 1

    def parts(self) -> dict[str, Any]:
        """Everything that pictures depend on, as JSON: what differs from the product's own."""
        return _changed(asdict(self), asdict(Way()))


def _changed(mine: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _changed(value, own[name]) if isinstance(value, dict) else value
        for name, value in mine.items()
        if value != own[name]
    }
