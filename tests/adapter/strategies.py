"""Hypothesis strategies for adapters' metadata: every field over all that its rule allows."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from adapter.samples import metadata
from perfuse.adapter import errors, limits
from perfuse.adapter.header import AdapterMetadata, Encoder, Layer

# The same examples in every run, and no verdict on a busy machine's speed.
bounded = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

part = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
layer_names = st.lists(part, min_size=1, max_size=5).map(".".join)
identifiers = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
texts = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
    # Some marks merge with their neighbours under NFC; they are not what these laws are about.
    .filter(lambda text: text.isprintable() and metadata_takes(text))
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-limits.MAX_INTEGER, limits.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)


def metadata_takes(text: str) -> bool:
    try:
        metadata(placeholder=text)
    except errors.MetadataInvalid:
        return False
    return True


@st.composite
def described(draw: st.DrawFn) -> AdapterMetadata:
    width = st.integers(1, 40)
    layers = draw(st.lists(st.builds(Layer, layer_names, width), min_size=1, max_size=12))
    encoders = draw(st.lists(st.builds(Encoder, identifiers, width), min_size=1, max_size=3))
    return metadata(
        layers=tuple({layer.name: layer for layer in layers}.values()),
        encoders=tuple({encoder.name: encoder for encoder in encoders}.values()),
        conditioning_width=draw(width),
        super_category=draw(texts),
        placeholder=draw(texts),
        key_lock=draw(st.sampled_from(["LOCAL", "TRAINED_K"])),
        bias=draw(st.floats(limits.MIN_BIAS, limits.MAX_BIAS)),
        temperature=draw(st.floats(limits.MIN_TEMPERATURE, limits.MAX_TEMPERATURE)),
        dtype=draw(st.sampled_from(["float16", "float32"])),
        training=draw(st.dictionaries(identifiers, scalars, max_size=6)),
    )
