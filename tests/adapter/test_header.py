"""The header: what it says, what fixes it, and how little is needed to judge it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.samples import BASE, OTHER_BASE, file_bytes, metadata, sd15, sd21, sdxl
from adapter.strategies import bounded, described
from perfuse.adapter import errors, limits
from perfuse.adapter.header import (
    AdapterHeader,
    AdapterMetadata,
    Encoder,
    Layer,
    digest,
    encode_header,
    read_header,
)
from perfuse.errors import AdapterRefused, BaseModelMismatch, NotFinite, WrongShape

quickly = settings(bounded, max_examples=40)


class TestMetadata:
    @quickly
    @given(described())
    def test_read_back_equal(self, written: AdapterMetadata) -> None:
        assert AdapterMetadata.from_json(written.to_json()) == written

    @quickly
    @given(described())
    def test_equal_metadata_give_equal_text(self, written: AdapterMetadata) -> None:
        other = replace(written, training=dict(reversed(written.training.items())))
        assert other.to_json() == written.to_json()
        assert hash(other) == hash(written)

    @quickly
    @given(described())
    def test_the_text_is_canonical_json(self, written: AdapterMetadata) -> None:
        text = written.to_json()
        assert text == json.dumps(
            json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )

    def test_an_integer_for_a_real_is_that_real(self) -> None:
        assert metadata(bias=1).to_json() == metadata(bias=1.0).to_json()

    def test_the_text_pinned(self) -> None:
        assert metadata().to_json() == (
            '{"architecture":"sd1","base_model":"' + BASE + '","bias":0.7,"conditioning_width":6,'
            '"dtype":"float16","encoders":[["text_encoder",6]],"format_version":1,'
            '"key_lock":"LOCAL","layer_suffix":".attn2",'
            '"layers":[["down_blocks.0",8],["up_blocks.1",12]],"placeholder":"<tom>",'
            '"super_category":"cat","temperature":0.15,"training":{"mask":"alpha","steps":400}}'
        )

    @pytest.mark.parametrize(
        ("names", "suffix"),
        [
            (["a.b.c"], ".b.c"),
            (["a", "b"], ""),
            (["a.b", "b"], ""),
            (["x.attn2", "y.attn2"], ".attn2"),
            (["x.1.attn2", "y.11.attn2"], ".attn2"),
            (["b.c", "a.b.c"], ".c"),
        ],
    )
    def test_what_all_layers_names_end_in_is_said_once(self, names: list[str], suffix: str) -> None:
        described = metadata(layers=tuple(Layer(name, 4) for name in names))
        assert json.loads(described.to_json())["layer_suffix"] == suffix
        assert AdapterMetadata.from_json(described.to_json()) == described

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("architecture", "../sd1"),
            ("layers", ()),
            ("layers", (Layer("a..b", 4),)),
            ("layers", (Layer("a", 0),)),
            ("layers", (Layer("a", limits.MAX_WIDTH + 1),)),
            ("layers", (Layer("a" * (limits.MAX_LAYER_NAME + 1), 4),)),
            ("encoders", (Encoder("A", 4),)),
            ("encoders", tuple(Encoder(f"e{i}", 4) for i in range(limits.MAX_ENCODERS + 1))),
            ("conditioning_width", 6.0),
            ("super_category", ""),
            ("super_category", " cat"),
            ("placeholder", "two words"),
            ("key_lock", "GLOBAL"),
            ("bias", float("nan")),
            ("bias", limits.MAX_BIAS + 0.01),
            ("temperature", 0),
            ("dtype", "bfloat16"),
            ("training", [1]),
            ("training", {"Steps": 1}),
            ("training", {"loss": float("inf")}),
            ("training", {"steps": limits.MAX_INTEGER + 1}),
            ("training", {"note": "a" * (limits.MAX_TRAINING_TEXT + 1)}),
            ("training", {f"k{i}": i for i in range(limits.MAX_TRAINING_ENTRIES + 1)}),
        ],
    )
    def test_a_field_outside_its_rule_cannot_be_made(self, field: str, value: object) -> None:
        with pytest.raises(errors.MetadataInvalid, match=field.rstrip("s")):
            metadata(**{field: value})

    def test_another_version_names_both(self) -> None:
        with pytest.raises(errors.UnknownFormatVersion, match=r"version 2; .* version 1"):
            metadata(format_version=2)

    def test_global_is_told_where_it_belongs(self) -> None:
        with pytest.raises(errors.MetadataInvalid, match=r"when rendering.* LOCAL"):
            metadata(key_lock="GLOBAL")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


class TestHeader:
    @quickly
    @given(described())
    def test_metadata_fix_the_header(self, written: AdapterMetadata) -> None:
        data = file_bytes(written)
        header = read_header(data)
        assert header.metadata == written
        assert data[: header.payload_offset] == encode_header(written)
        assert header.payload_offset % limits.HEADER_ALIGNMENT == 0

    @quickly
    @given(described())
    def test_tensors_fill_the_file_without_gap(self, written: AdapterMetadata) -> None:
        data = file_bytes(written)
        header = read_header(data)
        edges = [0, *(tensor.end for tensor in header.tensors)]
        assert [tensor.begin for tensor in header.tensors] == edges[:-1]
        assert header.payload_offset + edges[-1] == header.total_size == len(data)
        assert [tensor.name for tensor in header.tensors] == sorted(written.tensor_widths())

    def test_the_first_bytes_suffice(self) -> None:
        data = file_bytes(sdxl(key_lock="TRAINED_K", dtype="float32"))
        whole = read_header(data)
        assert AdapterHeader.parse(data[: whole.payload_offset], len(data)) == whole
        assert AdapterHeader.parse(data[: limits.PREFIX_BYTES], len(data)) == whole
        with pytest.raises(errors.Truncated):
            AdapterHeader.parse(data[: whole.payload_offset - 1], len(data))

    def test_a_path_is_read_like_its_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "tom.safetensors"
        path.write_bytes(file_bytes(sd15()))
        assert read_header(path) == read_header(str(path)) == read_header(path.read_bytes())

    def test_span_finds_a_tensor_and_no_other(self) -> None:
        data = file_bytes(metadata())
        header = read_header(data)
        assert data[header.span("embedding.text_encoder")] == data[header.payload_offset :][:12]
        with pytest.raises(KeyError):
            header.span("key_output")

    def test_a_base_model_mismatch_names_both(self) -> None:
        header = read_header(file_bytes(metadata()))
        header.require_base(BASE)
        with pytest.raises(BaseModelMismatch) as caught:
            header.require_base(OTHER_BASE)
        assert BASE in str(caught.value)
        assert OTHER_BASE in str(caught.value)

    def test_digest_is_sha256(self) -> None:
        assert digest(b"") == "sha256:" + hashlib.sha256(b"").hexdigest()

    def test_more_than_a_file_may_hold_cannot_be_written(self) -> None:
        wide = tuple(Layer(f"layer.{i}", limits.MAX_WIDTH) for i in range(65))
        with pytest.raises(errors.FileTooLarge):
            encode_header(metadata(layers=wide, dtype="float32"))
        long = tuple(Layer(f"{i:03}" + "a" * 125, 1) for i in range(limits.MAX_LAYERS))
        notes = {f"note_{i}": "a" * 256 for i in range(limits.MAX_TRAINING_ENTRIES)}
        wide_notes = dict.fromkeys(notes, "\U0001f408" * 256)
        encode_header(metadata(layers=long, training=notes))
        with pytest.raises(errors.HeaderTooLarge):
            encode_header(metadata(layers=long, training=wide_notes))

    @quickly
    @given(st.sampled_from([field.name for field in fields(AdapterMetadata)]), anything)
    def test_no_value_of_a_field_escapes_the_tree(self, field: str, value: object) -> None:
        document = json.loads(metadata().to_json()) | {field: value}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        try:
            read = AdapterMetadata.from_json(text)
        except AdapterRefused:
            return
        assert AdapterMetadata.from_json(read.to_json()) == read

    @quickly
    @given(st.sampled_from(["target_input", "value_output", "__metadata__", "other"]), anything)
    def test_no_value_in_the_header_escapes_the_tree(self, name: str, value: object) -> None:
        data = file_bytes(metadata())
        header = read_header(data)
        document = json.loads(data[8 : header.payload_offset]) | {name: value}
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()
        with pytest.raises(AdapterRefused):
            read_header(len(text).to_bytes(8, "little") + text + data[header.payload_offset :])


class TestSizes:
    """12 480 outputs per projection in SD1.5; the paper's 100 KB stores the keys as well."""

    @pytest.mark.parametrize(
        ("layout", "local", "trained_k"),
        [(sd15, 14_016, 26_496), (sd21, 14_528, 27_008), (sdxl, 87_296, 170_496)],
    )
    def test_counts_of_the_method(self, layout: type, local: int, trained_k: int) -> None:
        """o*_V (and o*_K), i* and the word embeddings; e_super is our own d values more."""
        for key_lock, count in [("LOCAL", local), ("TRAINED_K", trained_k)]:
            described = layout(key_lock=key_lock)
            values = sum(described.tensor_widths().values())
            assert values - described.conditioning_width == count

    def test_sd15(self) -> None:
        described = sd15()
        assert (len(described.layers), described.output_width) == (16, 12_480)
        assert len(file_bytes(described)) <= 31 * 1024
        assert len(file_bytes(sd15(training={}))) <= 31_000
        assert len(file_bytes(sd15(dtype="float32"))) <= 60 * 1024
        assert 100_000 <= len(file_bytes(sd15(key_lock="TRAINED_K", dtype="float32"))) <= 112_000

    def test_sdxl(self) -> None:
        described = sdxl()
        assert (len(described.layers), described.output_width) == (70, 83_200)
        assert len(file_bytes(described)) <= 184_000

    def test_the_head_of_the_largest_layout_is_a_tenth_of_its_limit(self) -> None:
        assert len(encode_header(sdxl())) < limits.MAX_HEADER_BYTES / 10


def test_errors_that_a_caller_knows_by_another_name() -> None:
    assert issubclass(errors.WrongTensorShape, WrongShape)
    assert issubclass(errors.NonFiniteTensor, NotFinite)


def test_every_case_is_drawn_and_has_its_sentence() -> None:
    cases = [
        case
        for case in vars(errors).values()
        if isinstance(case, type) and case.__module__ == errors.__name__
    ]
    assert len(cases) > 10
    for case in cases:
        assert issubclass(case, AdapterRefused)
        assert f"── {case.__name__} " in (errors.__doc__ or "")
        assert case.__doc__


def test_the_limits_in_the_documentation_are_those_in_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapter-format.md").read_text(encoding="utf-8")
    named = {
        name: value for name, value in vars(limits).items() if name.startswith(("MAX_", "MIN_"))
    }
    for name, value in named.items():
        assert f"| `{name}` | {value:,} |".replace(",", " ") in page, name


@pytest.mark.parametrize(
    "statement",
    [
        "import perfuse.adapter",
        "import perfuse.adapter.header, perfuse.adapter.limits, perfuse.adapter.errors",
        "from perfuse.adapter import check_finite, read_header, digest",
    ],
)
def test_importing_the_header_loads_neither_torch_nor_numpy(statement: str) -> None:
    heavy = "{'torch', 'numpy', 'safetensors'}"
    code = f"{statement}\nimport sys\nprint(*sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
