"""A way of learning and rendering that a trial compares with others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Learnt:
    """How a concept is learned; the defaults are the product's.

    Attributes:
        gradient: Through the target input i*: `NONE`; `MEAN`, as the running mean passes it on, a
            hundredth; `WHOLE`, as if i* were this batch's encoding.
        counted: Positions that count in C: `WORDS`, from the first word through end of text;
            `ALL`, start and padding too; `NO_END`, words alone.
        outputs: o*_V for each `PROJECTION`, or for each of its `POSITION`s.
    """

    gradient: str = "NONE"
    counted: str = "WORDS"
    outputs: str = "PROJECTION"


@dataclass(frozen=True)
class Way:
    """How a concept is learned and rendered; the defaults are the product's.

    Attributes:
        learnt: See there.
        key_lock: LOCAL or GLOBAL.
        temperature: Of the gate.
        keys: Of GLOBAL: the super-category prompt's own (`PLAIN`), or edited (`EDITED`), by the
            similarity of its own encodings.
        places: Where the edit acts: `ALL`; `NOT_START`; `NOT_PADDING`; `WORDS`, neither of them;
            `CONCEPT`, only the concept's word.
        tail: Whether the gate keeps its tail; without, it is 0 at s = 0 and 1 at s = 1.
        remainder: What stands where a gate is not open, a `Remainder`.
    """

    learnt: Learnt = Learnt()
    key_lock: str = "LOCAL"
    temperature: float = 0.15
    keys: str = "PLAIN"
    places: str = "ALL"
    tail: bool = True
    remainder: str = "SUPER_CATEGORY"

    def parts(self) -> dict[str, Any]:
        """Everything that pictures depend on, as JSON."""
        return asdict(self)
