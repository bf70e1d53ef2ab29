"""From what was learned to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.fidelity.curriculum import Asked
from bench.fidelity.lessons import INVERSION, LORA
from bench.fidelity.lora import lora_plan
from perfuse.adapter.tensors import Adapter
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    encode,
    generate,
    plain_projections,
    plan,
)
from perfuse.method import KeyLock, Reach, Remainder

GUIDANCE = 3.0
TEMPERATURE = 0.15
_ROWS = 24


@dataclass(frozen=True)
class Rendering:
    """How what was learned is rendered.

    Attributes:
        key_lock: Of ours: LOCAL, GLOBAL or TRAINED_K.
        bias: Of our gate.
        remainder: Of ours: what stands where a gate is not open, a `Remainder`.
        reach: Of ours: at which positions it acts, a `Reach`.
        scale: Of a LoRA; of each, where there are several.
        kept: Of ours: the adapter of the `best` validation, or of the end, `last`; or the best with
            the running mean of training as its target input, `unsettled`.
        dtype: In which our file is written.
    """

    key_lock: str = "LOCAL"
    bias: float = 0.5
    remainder: str = "SUPER_CATEGORY"
    reach: str = "NAMED"
    scale: float = 1.0
    kept: str = "best"
    dtype: str = "float16"

    def parts(self) -> dict[str, Any]:
        """Everything that pictures depend on, as JSON; what came later only where it differs."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name != "reach" or value != Rendering.reach
        }


def adapter_of(learned: Mapping[str, Tensor], rendering: Rendering) -> Adapter:
    """The adapter as it is read back from a file of the asked precision."""
    whole = Adapter.from_bytes(learned[rendering.kept].numpy().tobytes())
    return Adapter.from_bytes(whole.to_bytes(rendering.dtype))


def plans(
    base: BaseModel,
    method: str | None,
    learned: Mapping[str, Mapping[str, Tensor]],
    asked: Sequence[Asked],
    rendering: Rendering,
) -> list[ConditioningPlan]:
    """One plan for each prompt; with method None, the base's own of the caption."""
    if method is None:
        return [plan(base, one.caption) for one in asked]
    if method == LORA:
        return [
            lora_plan(base, one.caption, [learned[name] for name in one.figures], rendering.scale)
            for one in asked
        ]
    if method == INVERSION:
        return [_inverted(base, one, learned) for one in asked]
    concepts = {
        name: PlannedConcept(name, adapter_of(one, rendering), rendering.bias, TEMPERATURE)
        for name, one in learned.items()
    }
    lock = KeyLock(rendering.key_lock)
    remainder, reach = Remainder(rendering.remainder), Reach(rendering.reach)
    return [
        plan(
            base,
            one.prompt,
            [concepts[name] for name in one.figures],
            key_lock=lock,
            remainder=remainder,
            reach=reach,
        )
        for one in asked
    ]


def render(
    base: BaseModel, planned: Sequence[ConditioningPlan], seeds: Sequence[int], steps: int
) -> Tensor:
    """Pictures `[plans · seeds, 3, 32, 32]` uint8, the seeds of a plan side by side."""
    rows = [(one, seed) for one in planned for seed in seeds]
    made = []
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        made += generate(
            base,
            [one for one, _ in some],
            # Another noise for every prompt, the same for every setting.
            seeds=[1000 * seed + start + index for index, (_, seed) in enumerate(some)],
            steps=steps,
            guidance=GUIDANCE,
        )
    return torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in made])


@torch.no_grad()
def _inverted(
    base: BaseModel, asked: Asked, learned: Mapping[str, Mapping[str, Tensor]]
) -> ConditioningPlan:
    encoded = encode(base, asked.prompt, learned)
    projections = plain_projections(base, encoded.encodings)
    return replace(
        plan(base, asked.caption),
        keys=tuple(key[0] for key in projections.keys),
        values=tuple(value[0] for value in projections.values),
        encodings=encoded.encodings[0],
    )
