"""What an adapter says about itself: the JSON under the file's one metadata key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import cast

from perfuse.adapter import limits, rules, strict_json
from perfuse.adapter.errors import MetadataInvalid, shown

Scalar = str | int | float | bool | None

BYTES_PER_VALUE: Mapping[str, int] = {"float16": 2, "float32": 4}
KEY_LOCKS = ("LOCAL", "TRAINED_K")


@dataclass(frozen=True, slots=True)
class Layer:
    """One cross-attention layer: its dotted name in the denoiser and its projections' width d_l."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class Encoder:
    """One text encoder: its name in the pipeline and the width of its word embeddings."""

    name: str
    width: int


@dataclass(frozen=True, kw_only=True)
class AdapterMetadata:
    """What must be known of an adapter before its tensors mean anything; valid once it exists.

    Attributes:
        format_version: `limits.FORMAT_VERSION`.
        base_model: fingerprint of the base model that it was trained on, "sha256:<64 hex>".
        architecture: the base model's kind, for messages ("sd1", "sdxl", ...).
        layers: cross-attention layers in the order in which `value_output` concatenates them.
        encoders: text encoders, each with one placeholder embedding.
        conditioning_width: d, the width of the encodings that the projections see.
        super_category: the everyday noun that the concept is a kind of.
        placeholder: the word that stood for the concept in training.
        key_lock: "LOCAL" or "TRAINED_K". GLOBAL is a way to render a LOCAL adapter.
        bias, temperature: of the gate, as suggested for rendering.
        dtype: number type of the file's tensors, "float16" or "float32".
        training: a summary for people: few entries, each a JSON scalar. Kept sorted by key.

    Raises:
        UnknownFormatVersion: `format_version` is another.
        MetadataInvalid: a field breaks its rule (`docs/adapter-format.md` lists them).
    """

    format_version: int = limits.FORMAT_VERSION
    base_model: str
    architecture: str
    layers: tuple[Layer, ...]
    encoders: tuple[Encoder, ...]
    conditioning_width: int
    super_category: str
    placeholder: str
    key_lock: str
    bias: float
    temperature: float
    dtype: str = "float16"
    training: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        rules.check_version(self.format_version)
        rules.check_base_model(self.base_model)
        rules.check_architecture(self.architecture)
        rules.check_layers(self.layers)
        rules.check_encoders(self.encoders)
        rules.check_integer("conditioning_width", self.conditioning_width, 1, limits.MAX_WIDTH)
        rules.check_text("super_category", self.super_category, limits.MAX_SUPER_CATEGORY)
        rules.check_text("placeholder", self.placeholder, limits.MAX_PLACEHOLDER)
        if " " in self.placeholder:
            raise MetadataInvalid(f"placeholder is {shown(self.placeholder)}; it must be one word")
        rules.check_choice("key_lock", self.key_lock, KEY_LOCKS)
        rules.check_choice("dtype", self.dtype, tuple(BYTES_PER_VALUE))
        rules.check_real("bias", self.bias, limits.MIN_BIAS, limits.MAX_BIAS)
        rules.check_real(
            "temperature", self.temperature, limits.MIN_TEMPERATURE, limits.MAX_TEMPERATURE
        )
        rules.check_training(self.training)
        # One type and one order for each field, so that equal metadata are written alike.
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "encoders", tuple(self.encoders))
        object.__setattr__(self, "bias", float(self.bias))
        object.__setattr__(self, "temperature", float(self.temperature))
        object.__setattr__(self, "training", dict(sorted(self.training.items())))

    @property
    def output_width(self) -> int:
        """Σ d_l, the length of `value_output`."""
        return sum(layer.width for layer in self.layers)

    def tensor_widths(self) -> dict[str, int]:
        """The tensors that a file with this metadata holds: name → length, in file order."""
        widths = {f"embedding.{encoder.name}": encoder.width for encoder in self.encoders}
        widths["super_category_encoding"] = self.conditioning_width
        widths["target_input"] = self.conditioning_width
        widths["value_output"] = self.output_width
        if self.key_lock == "TRAINED_K":
            widths["key_output"] = self.output_width
        return dict(sorted(widths.items()))

    def to_json(self) -> str:
        """The canonical text: equal metadata give equal text, in any process."""
        suffix = _common_suffix([layer.name for layer in self.layers])
        return strict_json.canonical(
            {
                "architecture": self.architecture,
                "base_model": self.base_model,
                "bias": self.bias,
                "conditioning_width": self.conditioning_width,
                "dtype": self.dtype,
                "encoders": [[encoder.name, encoder.width] for encoder in self.encoders],
                "format_version": self.format_version,
                "key_lock": self.key_lock,
                "layer_suffix": suffix,
                "layers": [[layer.name.removesuffix(suffix), layer.width] for layer in self.layers],
                "placeholder": self.placeholder,
                "super_category": self.super_category,
                "temperature": self.temperature,
                "training": dict(self.training),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> AdapterMetadata:
        """Reads what `to_json` wrote.

        Raises:
            DuplicateKey, UnknownFormatVersion, MetadataInvalid: as their names say.
        """
        return cls.from_document(strict_json.parse(text, "the 'perfuse' metadata", MetadataInvalid))

    @classmethod
    def from_document(cls, document: object) -> AdapterMetadata:
        """Judges what was read from the text that `to_json` wrote.

        Raises:
            UnknownFormatVersion, MetadataInvalid: as their names say.
        """
        if not isinstance(document, dict):
            raise MetadataInvalid(f"the 'perfuse' metadata is {shown(document)}, not an object")
        # The version first: of another version we cannot know which fields are right.
        rules.check_version(document.get("format_version"))
        if missing := sorted(_KNOWN - document.keys()):
            raise MetadataInvalid(f"the 'perfuse' metadata lacks {', '.join(missing)}")
        if unknown := sorted(document.keys() - _KNOWN):
            raise MetadataInvalid(
                f"the 'perfuse' metadata has the unknown field {shown(unknown[0])}; format version "
                f"{limits.FORMAT_VERSION} has only {', '.join(sorted(_KNOWN))}"
            )
        suffix = document.pop("layer_suffix")
        if not isinstance(suffix, str):
            raise MetadataInvalid(f"layer_suffix is {shown(suffix)}; it must be text")
        # The entries are counted before any name is put together: a long suffix on thousands of
        # layers would otherwise turn 64 KiB of header into hundreds of megabytes.
        layers = _pairs("layers", document["layers"], limits.MAX_LAYERS)
        encoders = _pairs("encoders", document["encoders"], limits.MAX_ENCODERS)
        document["layers"] = tuple(Layer(name + suffix, width) for name, width in layers)
        document["encoders"] = tuple(Encoder(name, width) for name, width in encoders)
        return cls(**document)


_KNOWN = {field.name for field in fields(AdapterMetadata)} | {"layer_suffix"}


def _common_suffix(names: list[str]) -> str:
    """The longest run of dotted parts, leading dot included, that ends every name but is none.

    In SD1.5 it is ".transformer_blocks.0.attn2"; to say it once saves 1.4 % of the file.
    """
    endings = [name.split(".")[:0:-1] for name in names]
    common: list[str] = []
    for parts in zip(*endings, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "".join(f".{part}" for part in reversed(common))


def _pairs(name: str, pairs: object, most: int) -> list[tuple[str, int]]:
    if not isinstance(pairs, list):
        raise MetadataInvalid(f"{name} is {shown(pairs)}; it must be a list of [name, width]")
    rules.check_count(name, pairs, most)
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise MetadataInvalid(f"{name} holds {shown(pair)}; each entry must be [name, width]")
    return [(pair[0], cast(int, pair[1])) for pair in pairs]
