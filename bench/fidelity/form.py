"""How much is measured: the full form, and the reduced one that ends within ten minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Form:
    """The size of everything.

    Attributes:
        name: `full`, `quick`, or a test's own.
        concepts: How many of `curriculum.TAUGHT`, the first ones.
        prompts: Per concept, up to 12.
        seeds: Of the pictures of every prompt.
        pictures: That a concept is learned from.
        steps, batch: Of every lesson, ours and the peers'.
        output_rate: Learning rate of our target outputs, in every claim.
        over: How many times `steps` an over-trained lesson takes.
        over_concepts: How many concepts are over-trained.
        denoising: Steps of a picture.
        biases: The sweep of the gate's bias, ascending.
        scales: The sweep of a LoRA's scale, ascending.
        inversion_rates: Learning rates of textual inversion.
        lora_rates: Learning rates of the LoRA.
        blend_scenes: Scenes of every blend, up to 6.
        blends: How many of `curriculum.BLENDS`.
    """

    name: str
    concepts: int
    prompts: int
    seeds: tuple[int, ...]
    pictures: int
    steps: int
    batch: int
    output_rate: float
    over: int
    over_concepts: int
    denoising: int
    biases: tuple[float, ...]
    scales: tuple[float, ...]
    inversion_rates: tuple[float, ...]
    lora_rates: tuple[float, ...]
    blend_scenes: int
    blends: int

    @property
    def rows(self) -> int:
        """Pictures of one concept under one setting."""
        return self.prompts * len(self.seeds)


FULL = Form(
    name="full",
    concepts=8,
    prompts=12,
    seeds=(1, 2),
    pictures=5,
    steps=100,
    batch=16,
    output_rate=0.1,
    over=6,
    over_concepts=4,
    denoising=15,
    biases=(0.1, 0.25, 0.4, 0.55, 0.7, 0.9, 1.1),
    scales=(0.4, 0.7, 1.0),
    inversion_rates=(0.002, 0.01, 0.05),
    lora_rates=(0.0003, 0.001, 0.003),
    blend_scenes=6,
    blends=6,
)

QUICK = Form(
    name="quick",
    concepts=3,
    prompts=4,
    seeds=(1, 2),
    pictures=5,
    steps=100,
    batch=8,
    output_rate=0.1,
    over=4,
    over_concepts=1,
    denoising=10,
    biases=(0.2, 0.5, 0.8, 1.1),
    scales=(0.5, 1.0),
    # The best ones of the full form.
    inversion_rates=(0.01,),
    lora_rates=(0.003,),
    blend_scenes=3,
    blends=3,
)

BROAD = replace(
    QUICK,
    name="broad",
    concepts=FULL.concepts,
    batch=FULL.batch,
)
"""As few pictures as the quick form has, of all concepts, learned as in the full one."""
