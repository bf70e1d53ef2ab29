"""What the Renderer's benchmark is held to, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BASES = {"toybox": "toybox", "sd15": "SD1.5, random weights"}
SWAP = 1 / 50
_HELD = ("kept / load", "new / (load + encode)", "(gate - none) / load")
"""Of the swap's ratios: with text encoding on neither side, on both, and with neither encoding nor
the projection of the text, which stock diffusers does in every step."""
_SAID = {
    "(gate - none) / load": "what a concept adds to its prompt, text at hand ÷ load",
    "(first - bare) / load": "what a concept adds to its prompt, never seen before ÷ load",
}


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        part: (a) to (f).
        what: it is.
        base: it was measured on.
        value: as measured.
        target: that it is held to; None where it is only reported.
        at_least: whether more is better.
        unit: shown behind the number.
    """

    part: str
    what: str
    base: str
    value: float
    target: float | None = None
    at_least: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def figures(record: dict[str, Any]) -> list[Figure]:
    """All of them, in the order of their parts."""
    found = [each for base in BASES if base in record for each in _of(record[base], BASES[base])]
    return sorted(found, key=lambda figure: figure.part)


def _of(measured: dict[str, Any], base: str) -> Iterator[Figure]:
    for kind in ("step", "whole_step"):
        if kind in measured:
            step = measured[kind]
            call = "denoiser's call" if kind == "step" else "engine's whole step"
            for count, ratio in step["ratio"].items():
                what = f"{call}, {count} concept{'s' * (count != '1')}, {step['lanes']} lanes"
                yield Figure("a", f"{what} ÷ stock", base, ratio, 1.02)
    for what, ratio in measured["swap"]["ratio"].items():
        held = SWAP if what in _HELD else None
        yield Figure("b", _SAID.get(what, what), base, ratio, held)
    mixed = measured["mixed"]["ratio"]
    # The batch is what is held to the target; planning now adds text encoding and edits to it.
    for when, least in {"planned before": 0.97, "planned now": None}.items():
        what = f"16 adapters ÷ none, {when}"
        yield Figure("c", what, base, mixed[when], least, at_least=True)
    yield Figure("c", "16 adapters ÷ stock pipeline", base, mixed["to the stock pipeline"])
    cancel = measured["cancel"]
    yield Figure("d", "steps ended after a cancel, p99", base, cancel["steps_p99"], 1)
    yield Figure("d", "time from cancel to free, p99", base, cancel["time_in_steps"]["p99"])
    cold = {"Renderer": "cold", "pool alone": "cold_pool"}
    for where, key in cold.items():
        if key in measured:
            added = measured[key]["added"]["p99_ms"]
            yield Figure(
                "e", f"added by a cold adapter, p99, {where}", base, added, 50.0, unit="ms"
            )
    if "load" in measured:
        load = measured["load"]
        for share, found in load["shares"].items():
            kept = found["goodput_per_second"] / load["capacity_per_second"]
            what = f"goodput ÷ capacity, offered {float(share):.0%}"
            yield Figure("f", what, base, round(kept, 2))
        yield Figure(
            "f", "light tenant's p99, flooded ÷ alone", base, load["light"]["ratio_p99"], 2
        )
