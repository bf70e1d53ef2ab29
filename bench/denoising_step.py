"""What concepts cost in a denoising step: conditioning plans beside the per-step edit.

The peer is the form of the two public implementations of the method (docs/method.md): every layer
computes C⁻¹ i*, similarity, gate and edit for its keys and its values again at every step. Here it
is written on the same base with the same functions, so that the ratio shows the form alone. The
yardstick is stock diffusers without any concept.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from perfuse import method
from perfuse.attach import (
    BaseModel,
    Conditioning,
    attach,
    denoise,
    edited_projections,
    encode_tokens,
    locked_key_outputs,
    silence_loading,
    strength,
    tokenise,
)
from perfuse.attach.prompt import Prompt
from perfuse_toybox.base import DIRECTORY

RESULTS = Path(__file__).parent / "results"
ROUNDS, ROWS = 40, 8
KINDS = ("cat", "sunglasses", "chair")


class EditEveryStep:
    """The peers' form: keys and values edited inside the layer, at every step."""

    def __init__(self, inverse: Tensor, inputs: Tensor, keys: Tensor, values: Tensor) -> None:
        self._inverse, self._inputs, self._keys, self._values = inverse, inputs, keys, values

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None
    ):  # type: ignore[no-untyped-def]
        del attention_mask, temb
        encodings = encoder_hidden_states
        key = self._edit(attn.to_k.weight, encodings, self._keys)
        value = self._edit(attn.to_v.weight, encodings, self._values)
        rows, _, width = key.shape
        heads = (rows, -1, attn.heads, width // attn.heads)
        attended = torch.nn.functional.scaled_dot_product_attention(
            attn.to_q(hidden_states).view(heads).transpose(1, 2),
            key.view(heads).transpose(1, 2),
            value.view(heads).transpose(1, 2),
        )
        attended = attended.transpose(1, 2).reshape(rows, -1, width)
        return attn.to_out[1](attn.to_out[0](attended))

    def _edit(self, weight: Tensor, encodings: Tensor, outputs: Tensor) -> Tensor:
        on = method.similarities(encodings, self._inputs, self._inverse)
        return method.blend(
            encodings @ weight.T,
            method.locked_key_output(weight, self._inputs),
            method.coordinates(encodings, self._inputs, self._inverse),
            method.gate(on, 0.7, 0.15),
            outputs,
        )


@torch.no_grad()
def contenders(base: BaseModel) -> dict[str, Callable[[], Tensor]]:
    """Name → one denoising step of `ROWS` rows."""
    text = "a photo of a cat wearing sunglasses on a chair in the snow"
    encoding = encode_tokens(base, [tokenise(base, Prompt.parse(text))] * ROWS)
    encodings = encoding.encodings
    supers = torch.cat(
        [
            encode_tokens(
                base,
                [
                    tokenise(
                        base,
                        Prompt.parse("a photo of a <it>", ["it"]).with_super_categories(
                            {"it": kind}
                        ),
                    )
                ],
            ).at_slots("it")
            for kind in KINDS
        ]
    )
    outputs = locked_key_outputs(base, supers)
    on = strength(base, encodings, supers, 0.7, 0.15)
    edited = Conditioning.of(edited_projections(base, encodings, on, outputs, outputs), encodings)
    channels, side = base.unet.config.in_channels, base.unet.config.sample_size
    latents = torch.randn(ROWS, channels, side, side, generator=torch.Generator().manual_seed(0))
    timesteps = torch.full((ROWS,), 500)
    stock = dict(base.unet.attn_processors)
    split = torch.split(outputs, [layer.width for layer in base.layers], dim=-1)
    every_step = dict(stock)
    for layer, part in zip(base.layers, split, strict=True):
        every_step[f"{layer.name}.processor"] = EditEveryStep(
            base.inverse_covariance, supers, part, part
        )
    assert set(every_step) == set(stock), "a layer's name is not its processor's"

    def plain() -> Tensor:
        return base.unet(latents, timesteps, encodings, return_dict=False)[0]

    def planned() -> Tensor:
        return denoise(base, latents, timesteps, edited)

    def with_processors(processors: dict[str, object], call: Callable[[], Tensor]) -> Tensor:
        base.unet.set_attn_processor(dict(processors))
        return call()

    def with_plans() -> Tensor:
        base.unet.set_attn_processor(dict(stock))
        with attach(base.unet):
            return planned()

    return {
        "stock diffusers, no concept": lambda: with_processors(stock, plain),
        "Perfuse, a plan with three concepts": with_plans,
        "peer form, three concepts edited every step": lambda: with_processors(every_step, plain),
    }


@torch.no_grad()
def main() -> None:
    """Measure, print the ratios, and keep figures and a plot."""
    silence_loading()
    base = BaseModel.load(DIRECTORY)
    calls = contenders(base)
    assert all(isinstance(one, AttnProcessor2_0) for one in base.unet.attn_processors.values())
    pictures = {name: call() for name, call in calls.items()}
    peer, ours = list(pictures.values())[2], list(pictures.values())[1]
    assert torch.allclose(peer, ours, atol=1e-4), "the two forms must compute the same prediction"
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(ROUNDS), "denoising steps", console=Console(stderr=True)):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    yardstick = next(iter(medians.values()))
    ratios = {name: median / yardstick for name, median in medians.items()}
    table = Table(f"one denoising step, {ROWS} rows", "median ms", "ratio to stock")
    for name, ratio in ratios.items():
        table.add_row(name, f"{1000 * medians[name]:.1f}", f"{ratio:.2f}")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    record = {
        "rows": ROWS,
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "median_ms": {name: round(1000 * value, 2) for name, value in medians.items()},
        "ratio_to_stock": {name: round(value, 3) for name, value in ratios.items()},
    }
    (RESULTS / "denoising_step.json").write_text(json.dumps(record, indent=2) + "\n")
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(ratios), list(ratios.values()), color=("#9aa0a6", "#2b6cb0", "#c0562f"))
    axes.invert_yaxis()
    axes.axvline(1.0, color="#444444", linewidth=0.8)
    axes.set_xlabel("time of one denoising step, stock diffusers = 1")
    figure.savefig(RESULTS / "denoising_step.png", dpi=120)
