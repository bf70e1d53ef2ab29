"""An adapter and its bytes: what goes in comes out, and the same adapter is the same bytes."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

import perfuse.adapter
from adapter.adapters import adapter, fixed, tensors_of
from adapter.samples import BASE, OTHER_BASE, file_bytes, metadata, sd15, sdxl
from adapter.strategies import bounded, described
from perfuse.adapter import check_finite, digest, errors, read_header
from perfuse.adapter.header import AdapterMetadata
from perfuse.adapter.tensors import Adapter
from perfuse.errors import AdapterRefused, BaseModelMismatch

quickly = settings(bounded, max_examples=40)

PINNED = "sha256:2e1d6283409691f7798ae81fdc6c7e1e93ee3332692ee5d42020978cc73936dd"


class TestRoundTrip:
    @quickly
    @given(described(), st.integers(0, 2**31))
    def test_values_come_back_as_the_file_rounds_them(
        self, written: AdapterMetadata, seed: int
    ) -> None:
        made = adapter(written, seed=seed)
        read = Adapter.from_bytes(made.to_bytes())
        dtype = {"float16": torch.float16, "float32": torch.float32}[written.dtype]
        assert read.metadata == written
        assert tensors_of(read).keys() == tensors_of(made).keys()
        for name, tensor in tensors_of(made).items():
            assert tensors_of(read)[name].dtype == dtype
            assert torch.equal(tensors_of(read)[name], tensor.to(dtype))

    @quickly
    @given(described(), st.integers(0, 2**31))
    def test_what_was_read_is_written_as_it_was(self, written: AdapterMetadata, seed: int) -> None:
        data = adapter(written, seed=seed).to_bytes()
        read = Adapter.from_bytes(data)
        assert read.to_bytes() == data
        assert read.digest == digest(data)

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_a_dtype_asked_for_is_the_one_in_the_file(self, dtype: str) -> None:
        made = adapter(metadata())
        read = Adapter.from_bytes(made.to_bytes(dtype))
        assert read.metadata == replace(made.metadata, dtype=dtype)
        assert read.to_bytes() == made.to_bytes(dtype)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_tensors_of_any_floating_dtype_are_written(self, dtype: torch.dtype) -> None:
        made = adapter(metadata(), dtype)
        read = Adapter.from_bytes(made.to_bytes("float32"))
        assert torch.equal(read.value_output, made.value_output.float())

    def test_signs_of_zero_and_smallest_values_survive(self) -> None:
        values = torch.tensor([0.0, -0.0, 2.0**-24, -(2.0**-24), 65504.0, -65504.0])
        made = replace(adapter(metadata()), super_category_encoding=values)
        read = Adapter.from_bytes(made.to_bytes())
        assert torch.equal(read.super_category_encoding.float(), values)
        assert torch.equal(read.super_category_encoding.signbit(), values.signbit())

    def test_strided_and_learning_tensors_are_written_as_their_values(self) -> None:
        plain = adapter(metadata())
        strided = torch.stack([plain.value_output, plain.value_output], dim=1)[:, 0]
        learning = torch.nn.Parameter(plain.target_input.clone())
        assert not strided.is_contiguous()
        other = replace(plain, value_output=strided, target_input=learning)
        assert other.to_bytes() == plain.to_bytes()

    def test_what_was_read_may_be_changed_without_harm_to_the_bytes(self) -> None:
        data = adapter(metadata()).to_bytes()
        Adapter.from_bytes(data).value_output.zero_()
        assert Adapter.from_bytes(data).value_output.any()

    def test_an_adapter_travels_by_pickle_between_our_own_processes(self) -> None:
        made = adapter(sd15())
        assert pickle.loads(pickle.dumps(made)).to_bytes() == made.to_bytes()


class TestLayers:
    def test_outputs_per_layer_are_the_declared_pieces(self) -> None:
        made = adapter(sdxl(key_lock="TRAINED_K"))
        keys = made.key_outputs()
        assert keys is not None
        for whole, pieces in [(made.value_output, made.value_outputs()), (made.key_output, keys)]:
            assert [len(piece) for piece in pieces] == [
                layer.width for layer in made.metadata.layers
            ]
            assert torch.equal(torch.cat(pieces), whole)

    def test_locked_keys_are_not_stored(self) -> None:
        assert adapter(metadata()).key_outputs() is None


MAKE_BYTES = """
import sys
from adapter.adapters import fixed
made = fixed(reverse=bool(int(sys.argv[1])))
print(made.digest, made.to_bytes("float32").hex()[-64:])
"""


class TestBytes:
    def test_the_same_in_any_process_and_order(self) -> None:
        tests = Path(__file__).parents[1]
        made = set()
        for seed, reverse in [("1", "1"), ("2", "0")]:
            run = subprocess.run(
                [sys.executable, "-c", MAKE_BYTES, reverse],
                env=os.environ | {"PYTHONPATH": str(tests), "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            )
            made.add(run.stdout)
        assert made == {f"{fixed().digest} {fixed().to_bytes('float32').hex()[-64:]}\n"}

    def test_pinned(self) -> None:
        """The digest of a file of format version 1 never changes; a new one needs a new version."""
        assert fixed().digest == PINNED

    def test_one_value_more_or_less_is_another_digest(self) -> None:
        one = fixed()
        values = one.value_output.clone()
        values[3] += 1 / 64
        assert replace(one, value_output=values).digest != one.digest

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_safetensors_own_writer_would_make_the_same_file(self, dtype: str) -> None:
        data = adapter(sdxl(key_lock="TRAINED_K")).to_bytes(dtype)
        read = Adapter.from_bytes(data)
        assert save(tensors_of(read), {"perfuse": read.metadata.to_json()}) == data

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_safetensors_own_reader_reads_it(self, dtype: str, tmp_path: Path) -> None:
        made = adapter(sd15(key_lock="TRAINED_K"))
        path = tmp_path / "tom.safetensors"
        assert made.write(path, dtype) == digest(path.read_bytes())
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"perfuse": replace(made.metadata, dtype=dtype).to_json()}
            assert sorted(file.keys()) == sorted(tensors_of(made))
            for name, tensor in tensors_of(made).items():
                assert torch.equal(file.get_tensor(name), tensor.to(getattr(torch, dtype)))


class TestRefusals:
    def test_another_base_model(self) -> None:
        data = adapter(metadata()).to_bytes()
        assert Adapter.from_bytes(data, expect_base=BASE).metadata.base_model == BASE
        with pytest.raises(BaseModelMismatch) as caught:
            Adapter.from_bytes(data, expect_base=OTHER_BASE)
        assert BASE in str(caught.value)
        assert OTHER_BASE in str(caught.value)

    def test_tensors_other_than_declared_make_no_adapter(self) -> None:
        made = adapter(metadata(key_lock="TRAINED_K"))
        with pytest.raises(errors.WrongTensorShape, match=r"value_output.*\[3\].*\[20\]"):
            replace(made, value_output=torch.zeros(3))
        with pytest.raises(errors.WrongTensorShape, match="target_input"):
            replace(made, target_input=torch.zeros(1, 6))
        with pytest.raises(errors.MissingTensor, match="key_output"):
            replace(made, key_output=None)
        with pytest.raises(errors.MissingTensor, match=r"embedding\.text_encoder"):
            replace(made, embeddings={})
        with pytest.raises(errors.UnexpectedTensor, match="key_output"):
            replace(made, metadata=metadata())
        with pytest.raises(errors.UnexpectedTensor, match=r"embedding\.other"):
            replace(made, embeddings=made.embeddings | {"other": torch.zeros(6)})
        with pytest.raises(errors.WrongDtype, match="int64"):
            replace(made, target_input=torch.ones(6, dtype=torch.int64))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_a_value_that_is_not_finite_is_not_written(self, value: float, dtype: str) -> None:
        made = adapter(metadata())
        made.value_output[7] = value
        with pytest.raises(errors.NonFiniteTensor, match=r"'value_output'.*index 7"):
            made.to_bytes(dtype)

    def test_a_value_beyond_float16_is_told_of_float32(self) -> None:
        made = adapter(metadata())
        made.value_output[7] = -70_000.0
        with pytest.raises(errors.NonFiniteTensor, match=r"70000.*dtype='float32'"):
            made.to_bytes()
        assert Adapter.from_bytes(made.to_bytes("float32")).value_output[7] == -70_000.0

    def test_a_target_input_without_direction_is_not_written(self) -> None:
        with pytest.raises(errors.ZeroTargetInput):
            replace(adapter(metadata()), target_input=torch.zeros(6)).to_bytes()

    def test_an_unknown_dtype_is_not_written(self) -> None:
        with pytest.raises(errors.MetadataInvalid, match="int8"):
            adapter(metadata()).to_bytes("int8")


class TestFinite:
    @quickly
    @given(
        st.sampled_from(["float16", "float32"]),
        st.lists(st.binary(min_size=4, max_size=4), min_size=20, max_size=20),
    )
    @example("float32", [b"\x00\x00\x80\x7f"] * 20)
    @example("float32", [b"\xff\xff\x7f\x7f"] * 20)
    def test_agrees_with_torch_on_any_bits(self, dtype: str, values: list[bytes]) -> None:
        described = metadata(dtype=dtype)
        data = file_bytes(described)
        header = read_header(data)
        width = 2 if dtype == "float16" else 4
        bits = b"".join(value[:width] for value in values)
        span = header.span("value_output")
        data = data[: span.start] + bits + data[span.stop :]
        finite = torch.frombuffer(bytearray(bits), dtype=getattr(torch, dtype)).isfinite()
        if bool(finite.all()):
            check_finite(header, data)
        else:
            first = int((~finite).nonzero()[0])
            with pytest.raises(errors.NonFiniteTensor, match=f"index {first};"):
                check_finite(header, data)

    @pytest.mark.parametrize("at", range(12))
    def test_one_bit_is_direction_enough(self, at: int) -> None:
        data = file_bytes(metadata())
        header = read_header(data)
        span = header.span("target_input")
        bits = bytes(at) + b"\x01" + bytes(11 - at)
        check_finite(header, data[: span.start] + bits + data[span.stop :])

    def test_the_header_of_another_file_is_refused(self) -> None:
        data = file_bytes(metadata())
        with pytest.raises(errors.Truncated):
            check_finite(read_header(data), data[:-1])
        with pytest.raises(errors.TrailingBytes):
            check_finite(read_header(data), data + b"\0")


class TestFuzz:
    """A damaged file is refused from within our own tree, or is another valid adapter."""

    data = file_bytes(metadata())

    def judge(self, data: bytes) -> None:
        try:
            read = Adapter.from_bytes(data)
        except AdapterRefused:
            return
        # Whatever is accepted is the one form of what it says: no two files are one adapter.
        assert read.to_bytes() == data

    @settings(bounded, max_examples=400)
    @given(
        st.lists(
            st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)), min_size=1, max_size=4
        )
    )
    def test_flipped_bytes(self, flips: list[tuple[int, int]]) -> None:
        damaged = bytearray(self.data)
        for at, mask in flips:
            damaged[at] ^= mask
        self.judge(bytes(damaged))

    def test_every_single_bit_of_the_header(self) -> None:
        for at in range(read_header(self.data).payload_offset):
            for bit in range(8):
                damaged = bytearray(self.data)
                damaged[at] ^= 1 << bit
                self.judge(bytes(damaged))

    def test_every_truncation(self) -> None:
        for end in range(len(self.data)):
            with pytest.raises(AdapterRefused):
                Adapter.from_bytes(self.data[:end])

    @settings(bounded, max_examples=200)
    @given(st.integers(0, len(data)), st.integers(0, 40), st.binary(max_size=40))
    def test_bytes_cut_out_and_put_in(self, at: int, cut: int, put: bytes) -> None:
        self.judge(self.data[:at] + put + self.data[at + cut :])

    @settings(bounded, max_examples=200)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        self.judge(data)
        self.judge(len(data).to_bytes(8, "little") + data)


class TestPackage:
    def test_all_that_is_promised_is_there(self) -> None:
        for name in perfuse.adapter.__all__:
            assert getattr(perfuse.adapter, name) is not None
        assert perfuse.adapter.Adapter is Adapter

    def test_what_is_not_promised_is_not(self) -> None:
        with pytest.raises(AttributeError, match="has no attribute 'Tensors'"):
            perfuse.adapter.Tensors  # noqa: B018

    def test_without_torch_one_sentence_says_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['torch'] = None\n"
            "import perfuse.adapter\n"
            "try: perfuse.adapter.Adapter\n"
            "except ImportError as error: print(error)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "pip install 'perfuse[engine]'" in run.stdout
