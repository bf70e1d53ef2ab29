"""(b) From another choice of concepts to a denoiser that is ready for its first step.

Ours, with the adapter in memory and its name resolved: `Planner.plan` for a prompt that names
another concept.

- "new": a prompt and a concept never planned: it encodes the prompt, edits, and projects keys and
  values of every layer.
- "seen": the same, but the concept was planned before in another prompt.
- "kept": planned before, and another concept's render came in between.
- "gate": the same prompt and concept with another bias, whose text is not encoded again.
- "none": a prompt without concepts, whose text is not encoded again either. What "gate" takes
  beyond it is what a choice of concepts costs by itself: the rest, encoding a text and projecting
  it into keys and values, stock diffusers does without any concept too, the latter in every step.
- "first" and "bare": "seen" once more, in turns with the same prompt without a concept, which is
  encoded anew as well. Their difference is the same cost seen from a prompt that never came
  before; what encoding a text takes varies by more than that.

Stock diffusers, on a denoiser of its own, with rank-4 LoRAs on every K and V on the local disk:

- "load": `load_lora_weights` and `set_adapters` of a LoRA that was not loaded before; the one
  before it is deleted outside the measured time.
- "hotswap": `load_lora_weights(hotswap=True)`, its quickest way to take another one from disk.
- "set": `set_adapters` between eight LoRAs that are all loaded already; measured after the rounds.
- "encode": its text encoder on the same prompt, without guidance.

What both need alike before a step, noise and a scheduler, is on neither side; nor is the step.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.utils import logging

from bench.renderer_bases import LORA_RANK, Shelf, concept, stock_pipeline, write_lora
from bench.renderer_figures import Step, median, median_ratio
from perfuse.attach import BaseModel
from perfuse.names import ConceptName
from perfuse_renderer.planning import Asker, ConceptSettings, PlannedPrompt, Planner
from perfuse_renderer.pool import AdapterPool

RESIDENT = 8
"""LoRAs that the peer holds for "set"."""

EDITS = 8
"""Turns of what is compared with and without a concept, for each round of the others: the
difference is small."""

ADDED = "(gate - none) / load"
ADDED_FIRST = "(first - bare) / load"

PROMPT = "a photo of {} at night"
ELSEWHERE = "{} in the snow"
_ASKER = Asker("bench", "Bearer none")


class Ours:
    """A planner over a shelf of concepts, as a server has it: a loop and its threads stay.

    Args:
        base: the base model.
        count: of concepts, `<c0>`, `<c1>`, ...

    Attributes:
        keeping: keeps every plan.
        forgetting: keeps what it computed until the next prompt comes, so that it plans every one
            anew.
        meeting: likewise, but keeps the concepts that it has met.
        editing: likewise, but keeps concepts and text encodings.
    """

    def __init__(self, base: BaseModel, count: int) -> None:
        shelf = Shelf(base, [concept(base, seed) for seed in range(count)])
        self._pool = AdapterPool(shelf)
        self._runner = asyncio.Runner()
        self.keeping = Planner(base, self._pool)
        self.forgetting = Planner(
            base, self._pool, max_bytes=1, max_text_bytes=1, max_concept_bytes=1
        )
        self.meeting = Planner(base, self._pool, max_bytes=1, max_text_bytes=1)
        self.editing = Planner(base, self._pool, max_bytes=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def plan(
        self, planner: Planner, index: int, text: str = PROMPT, bias: float | None = None
    ) -> tuple[float, PlannedPrompt]:
        """Plan a prompt that names concept `index`: seconds, and the plan."""
        settings = {f"c{index}": ConceptSettings(bias=bias)}
        return self._runner.run(self._plan(planner, index, text.format(f"<c{index}>"), settings))

    def edit(self, times: int) -> dict[str, list[float]]:
        """Seconds of "gate" and "none", and of "first" and "bare", taking turns."""
        found: dict[str, list[float]] = {"gate": [], "none": [], "first": [], "bare": []}
        for planner, names in ((self.editing, ("gate", "none")), (self.meeting, ("first", "bare"))):
            for turn in range(times + 1):
                with_one = self.plan(planner, 0, bias=0.5 + 0.4 * turn / (times + 1))[0]
                without = self._runner.run(self._plan(planner, 0, PROMPT.format("cat"), {}))[0]
                if turn:
                    found[names[0]].append(with_one)
                    found[names[1]].append(without)
        return found

    async def _plan(
        self, planner: Planner, index: int, prompt: str, settings: dict[str, ConceptSettings]
    ) -> tuple[float, PlannedPrompt]:
        name = ConceptName(_ASKER.tenant, f"c{index}").version("latest")
        # Resolves the name, and brings the adapter into memory the first time.
        await self._pool.get(_ASKER.tenant, name, _ASKER.authorization)
        began = time.perf_counter()
        made = await planner.plan(_ASKER, prompt, settings, None)
        return time.perf_counter() - began, made


class Theirs:
    """Stock pipelines and a folder of LoRAs.

    Args:
        base: the base model whose parts they use.
        folder: for the files.
        count: of LoRAs.
    """

    def __init__(self, base: BaseModel, folder: Path, count: int) -> None:
        self.pipeline = stock_pipeline(base)
        self._files = [write_lora(base, folder, seed) for seed in range(count)]

    def load(self, index: int, name: str, **arguments: Any) -> None:
        """Load a LoRA from disk under `name`, and choose it."""
        file = self._files[index]
        self.pipeline.load_lora_weights(
            str(file.parent),
            weight_name=file.name,
            adapter_name=name,
            local_files_only=True,
            **arguments,
        )
        if not arguments:
            self.pipeline.set_adapters([name])

    def choose(self, times: int) -> list[float]:
        """Seconds to choose another of `RESIDENT` LoRAs that are loaded all along."""
        for index in range(RESIDENT):
            self.load(index, f"resident-{index}")
        found = [
            _timed(partial(self.pipeline.set_adapters, [f"resident-{turn % RESIDENT}"]))
            for turn in range(times + 1)
        ]
        self.reset()
        return found[1:]

    def encode(self, index: int) -> None:
        """Encode a prompt as the pipeline does."""
        with torch.no_grad():
            self.pipeline.encode_prompt(PROMPT.format(index), "cpu", 1, False)

    def reset(self) -> None:
        """Take every LoRA off."""
        self.pipeline.unload_lora_weights()


def measure(base: BaseModel, rounds: int, advance: Step) -> dict[str, Any]:
    """Medians in ms and ratios.

    Args:
        base: the base model.
        rounds: in each of which every contender has one turn.
        advance: told after every round.
    """
    count = rounds + 2
    seconds: dict[str, list[float]] = {
        name: [] for name in ("new", "seen", "kept", "load", "hotswap", "encode")
    }
    with (
        tempfile.TemporaryDirectory(prefix="perfuse-bench-") as home,
        without_remarks(),
        Ours(base, count) as ours,
    ):
        theirs = Theirs(base, Path(home), max(count, RESIDENT))
        for index in range(2):
            ours.plan(ours.keeping, index)
        for index in range(count):
            ours.plan(ours.meeting, index, ELSEWHERE)
        for turn in range(rounds + 1):
            found = {
                "new": ours.plan(ours.forgetting, turn)[0],
                "seen": ours.plan(ours.meeting, turn)[0],
                "kept": ours.plan(ours.keeping, turn % 2)[0],
                **_their_turn(theirs, turn),
            }
            # The first round touches everything once and counts for nothing.
            if turn:
                for name, spent in found.items():
                    seconds[name].append(spent)
            advance()
        seconds["set"] = theirs.choose(rounds)
        seconds |= ours.edit(EDITS * rounds)
    return {
        "rounds": rounds,
        "lora": {"rank": LORA_RANK, "on": "every K and V", "resident": RESIDENT},
        "median_ms": {name: round(1000 * median(times), 3) for name, times in seconds.items()},
        "ratio": {
            "kept / load": _ratio(seconds, "kept", "load"),
            "kept / hotswap": _ratio(seconds, "kept", "hotswap"),
            "new / (load + encode)": _ratio(seconds, "new", "load", "encode"),
            "new / (hotswap + encode)": _ratio(seconds, "new", "hotswap", "encode"),
            "new / (set + encode)": _ratio(seconds, "new", "set", "encode"),
            "new / load": _ratio(seconds, "new", "load"),
            "seen / (load + encode)": _ratio(seconds, "seen", "load", "encode"),
            "gate / load": round(median(seconds["gate"]) / median(seconds["load"]), 5),
            ADDED: _added(seconds, "gate", "none"),
            ADDED_FIRST: _added(seconds, "first", "bare"),
        },
    }


@contextmanager
def without_remarks() -> Iterator[None]:
    """diffusers remarks on every LoRA that changes no text encoder, peft on every second one."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            yield
    finally:
        logging.set_verbosity(before)


def _their_turn(theirs: Theirs, turn: int) -> dict[str, float]:
    """Each of the peer's ways once, beginning and ending without a LoRA."""
    theirs.load(turn, "before")
    found = {"load": _timed(lambda: theirs.load(turn + 1, "after"))}
    theirs.reset()
    theirs.load(turn, "only")
    found["hotswap"] = _timed(lambda: theirs.load(turn + 1, "only", hotswap=True))
    theirs.reset()
    found["encode"] = _timed(lambda: theirs.encode(turn))
    return found


def _added(seconds: dict[str, list[float]], with_one: str, without: str) -> float:
    """The median of what a concept adds, as a share of loading a LoRA."""
    pairs = zip(seconds[with_one], seconds[without], strict=True)
    return round(median([more - less for more, less in pairs]) / median(seconds["load"]), 5)


def _ratio(seconds: dict[str, list[float]], ours: str, *theirs: str) -> float:
    sums = [sum(parts) for parts in zip(*(seconds[name] for name in theirs), strict=True)]
    return round(median_ratio(seconds[ours], sums), 5)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
