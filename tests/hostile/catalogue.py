"""Files that must be refused, each made by a few lines of code from a valid one.

`HOSTILE` lists them. This module loads neither torch nor numpy, so that a process without them
can try every file. README.md says how to add one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from adapter.samples import OTHER_BASE, file_bytes, metadata

from perfuse.adapter import errors, limits
from perfuse.adapter.header import Layer, read_header
from perfuse.errors import BaseModelMismatch, PerfuseError

Where = Literal["header", "base", "values"]
Document = dict[str, Any]

VALID = file_bytes(metadata())
HEADER = read_header(VALID)
PAYLOAD = VALID[HEADER.payload_offset :]


@dataclass(frozen=True)
class Hostile:
    """A file, what it tries, the error that must refuse it, and what suffices to see it.

    `where` is "header" when the header's bytes and the file's size suffice, "base" when the base
    model at hand (`samples.BASE`) must be known as well, "values" when the tensors must be read.
    """

    name: str
    tries: str
    data: Callable[[], bytes]
    refused_as: type[PerfuseError]
    where: Where


HOSTILE: list[Hostile] = []


def hostile(
    tries: str, refused_as: type[PerfuseError], where: Where = "header"
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def enter(data: Callable[[], bytes]) -> Callable[[], bytes]:
        HOSTILE.append(Hostile(data.__name__, tries, data, refused_as, where))
        return data

    return enter


# --- makers -------------------------------------------------------------------------------------


def pack(header: bytes | str, payload: bytes = PAYLOAD) -> bytes:
    """A safetensors file with this header text, padded as the format asks."""
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload


def header_text() -> str:
    return VALID[8 : HEADER.payload_offset].decode().rstrip(" ")


def document() -> Document:
    """The valid file's header, for changing."""
    parsed: Document = json.loads(header_text())
    return parsed


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def with_metadata_text(text: str) -> bytes:
    return pack(compact(document() | {"__metadata__": {"perfuse": text}}))


def with_fields(**changes: object) -> bytes:
    """The valid file with fields of its metadata changed, or dropped by `...`."""
    fields = json.loads(document()["__metadata__"]["perfuse"]) | changes
    kept = {name: fields[name] for name in sorted(fields) if fields[name] is not ...}
    return with_metadata_text(compact(kept))


def with_metadata_replaced(old: str, new: str) -> bytes:
    text = document()["__metadata__"]["perfuse"]
    assert text.count(old) == 1
    return with_metadata_text(text.replace(old, new))


def with_tensor(name: str, **changes: object) -> bytes:
    changed = document()
    changed[name] |= changes
    return pack(compact(changed))


def with_value(name: str, index: int, pattern: bytes, dtype: str = "float16") -> bytes:
    """A valid file, one value of which is overwritten by the bits `pattern`."""
    data = file_bytes(metadata(dtype=dtype))
    at = read_header(data).span(name).start + index * len(pattern)
    return data[:at] + pattern + data[at + len(pattern) :]


# --- sizes and lengths --------------------------------------------------------------------------


@hostile("offers nothing at all", errors.Truncated)
def empty() -> bytes:
    return b""


@hostile("ends inside the header's length", errors.Truncated)
def seven_bytes() -> bytes:
    return VALID[:7]


@hostile("promises a header and ends", errors.Truncated)
def length_only() -> bytes:
    return VALID[:8]


@hostile("ends in the middle of the header", errors.Truncated)
def header_cut() -> bytes:
    return VALID[: HEADER.payload_offset // 2]


@hostile("lacks the last byte of the last tensor", errors.Truncated)
def payload_cut() -> bytes:
    return VALID[:-1]


@hostile("promises tensors and brings none", errors.Truncated)
def payload_absent() -> bytes:
    return VALID[: HEADER.payload_offset]


@hostile("hides one byte behind the last tensor", errors.TrailingBytes)
def one_byte_more() -> bytes:
    return VALID + b"\0"


@hostile("is a ZIP archive as well, for readers that look at the end", errors.TrailingBytes)
def zip_polyglot() -> bytes:
    return VALID + b"PK\x05\x06" + bytes(18)


@hostile("is one byte larger than any adapter", errors.FileTooLarge)
def file_too_large() -> bytes:
    return VALID + bytes(limits.MAX_FILE_BYTES + 1 - len(VALID))


@hostile("asks for 2^63 bytes of memory for its header", errors.HeaderTooLarge)
def header_of_8_exabytes() -> bytes:
    return (1 << 63).to_bytes(8, "little") + VALID[8:]


@hostile("wraps a 64-bit sum of header length and 8", errors.HeaderTooLarge)
def header_length_overflows() -> bytes:
    return b"\xff" * 8 + VALID[8:]


@hostile("has a header one byte longer than any adapter's", errors.HeaderTooLarge)
def header_too_large() -> bytes:
    return pack(header_text() + " " * (limits.MAX_HEADER_BYTES + 1 - len(header_text())))


@hostile("makes a reader parse 3 MiB of empty tensors (seconds in some)", errors.HeaderTooLarge)
def header_of_empty_tensors() -> bytes:
    entry = '"{}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}'
    return pack("{" + ",".join(entry.format(i) for i in range(50_000)) + "}", b"")


@hostile("is a pickle that runs a command when loaded", errors.HeaderTooLarge)
def pickle_bytes() -> bytes:
    return (
        b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x85R."
    )


@hostile("is a torch.save archive under another name", errors.HeaderTooLarge)
def torch_archive() -> bytes:
    return b"PK\x03\x04\x14\0\x08\x08" + bytes(200)


@hostile("has a header of no bytes", errors.MalformedHeader)
def header_empty() -> bytes:
    return bytes(8) + PAYLOAD


# --- the header's JSON --------------------------------------------------------------------------


@hostile("is not text", errors.MalformedHeader)
def header_not_utf8() -> bytes:
    return pack(header_text().encode().replace(b"cat", b"c\xff\xfe"))


@hostile("spells '/' in overlong UTF-8", errors.MalformedHeader)
def header_overlong_utf8() -> bytes:
    return pack(header_text().encode().replace(b"cat", b"c\xc0\xaft"))


@hostile("begins with a byte-order mark", errors.MalformedHeader)
def header_with_mark() -> bytes:
    return pack("\ufeff" + header_text())


@hostile(
    "begins with a space, which safetensors forbids and its library reads", errors.MalformedHeader
)
def header_after_space() -> bytes:
    return pack(" " + header_text())


@hostile("is a list, not an object", errors.MalformedHeader)
def header_is_list() -> bytes:
    return pack(f"[{header_text()}]")


@hostile("stops in the middle of the JSON", errors.MalformedHeader)
def json_cut() -> bytes:
    return pack(header_text()[:-1])


@hostile("pads with NUL, behind which C code sees nothing", errors.MalformedHeader)
def header_padded_with_nul() -> bytes:
    return pack(header_text() + "\0" * 8)


@hostile("holds a second JSON document", errors.MalformedHeader)
def second_document() -> bytes:
    return pack(header_text() + "{}")


@hostile("nests 30 000 lists, to exhaust the stack", errors.MalformedHeader)
def nested_deep() -> bytes:
    return pack('{"a":' + "[" * 30_000 + "]" * 30_000 + "}")


@hostile(
    "never closes a string of escaped quotes, to make a search quadratic", errors.MalformedHeader
)
def escapes_without_end() -> bytes:
    return pack('{"' + '\\"' * 32_000)


@hostile("puts a number of 20 000 digits, slow to read", errors.MalformedHeader)
def number_without_end() -> bytes:
    return pack(header_text().replace('"shape":[6]', f'"shape":[{"9" * 20_000}]', 1))


@hostile("uses NaN as a width", errors.MalformedHeader)
def nan_in_header() -> bytes:
    return pack(header_text().replace('"shape":[6]', '"shape":[NaN]', 1))


@hostile("uses a number that overflows to infinity as a width", errors.MalformedHeader)
def infinity_in_header() -> bytes:
    return pack(header_text().replace('"shape":[6]', '"shape":[1e999]', 1))


@hostile("describes one tensor twice; readers differ in which one they keep", errors.DuplicateKey)
def tensor_twice() -> bytes:
    entry = compact(document()["target_input"])
    return pack(header_text()[:-1] + f',"target_input":{entry}}}')


@hostile("describes one tensor twice, once with an escape in its name", errors.DuplicateKey)
def tensor_twice_escaped() -> bytes:
    entry = compact(document()["target_input"])
    return pack(header_text()[:-1] + f',"t\\u0061rget_input":{entry}}}')


@hostile("brings two metadata objects, one to check and one to use", errors.DuplicateKey)
def metadata_twice() -> bytes:
    return pack(header_text()[:-1] + ',"__metadata__":{"perfuse":"{}"}}')


@hostile("brings two texts under the metadata key", errors.DuplicateKey)
def metadata_key_twice() -> bytes:
    return pack(header_text().replace('{"perfuse":', '{"perfuse":"{}","perfuse":', 1))


@hostile("states two biases", errors.DuplicateKey)
def field_twice() -> bytes:
    return with_metadata_replaced('"bias":0.7', '"bias":0.7,"bias":0.1')


# --- the metadata -------------------------------------------------------------------------------


@hostile("is a safetensors file, but no adapter", errors.MetadataInvalid)
def no_metadata() -> bytes:
    changed = document()
    del changed["__metadata__"]
    return pack(compact(changed))


@hostile("adds a metadata key of its own", errors.MetadataInvalid)
def metadata_key_added() -> bytes:
    changed = document()
    changed["__metadata__"]["note"] = "read me"
    return pack(compact(changed))


@hostile("puts an object where safetensors wants text", errors.MetadataInvalid)
def metadata_not_text() -> bytes:
    return pack(compact(document() | {"__metadata__": {"perfuse": {"bias": 0.7}}}))


@hostile("makes the metadata a list", errors.MetadataInvalid)
def metadata_is_list() -> bytes:
    return pack(compact(document() | {"__metadata__": ["perfuse"]}))


@hostile("makes the metadata's text a number", errors.MetadataInvalid)
def metadata_text_is_number() -> bytes:
    return with_metadata_text("1")


@hostile("makes the metadata's text no JSON", errors.MetadataInvalid)
def metadata_text_not_json() -> bytes:
    return with_metadata_text("{bias: 0.7}")


@hostile("nests 10 000 lists inside the metadata's text", errors.MetadataInvalid)
def metadata_nested_deep() -> bytes:
    return with_metadata_text('{"training":' + "[" * 10_000 + "]" * 10_000 + "}")


@hostile("comes from a format that does not exist yet", errors.UnknownFormatVersion)
def version_two() -> bytes:
    return with_fields(format_version=2)


@hostile("states the version as true, which equals 1 in Python", errors.UnknownFormatVersion)
def version_true() -> bytes:
    return with_fields(format_version=True)


@hostile("states no version", errors.UnknownFormatVersion)
def version_missing() -> bytes:
    return with_fields(format_version=...)


@hostile("adds a field that a careless reader might obey", errors.MetadataInvalid)
def field_unknown() -> bytes:
    return with_fields(post_load="import os")


@hostile("leaves a field out, hoping for a default", errors.MetadataInvalid)
def field_missing() -> bytes:
    return with_fields(temperature=...)


@hostile("names its base model by a path", errors.MetadataInvalid)
def base_model_is_path() -> bytes:
    return with_fields(base_model="../../etc/passwd")


@hostile("spells the fingerprint in capitals, to be another string", errors.MetadataInvalid)
def base_model_in_capitals() -> bytes:
    return with_fields(base_model="sha256:" + "5D" * 32)


@hostile("stores the key lock that exists only in rendering", errors.MetadataInvalid)
def key_lock_global() -> bytes:
    return with_fields(key_lock="GLOBAL")


@hostile("names a layer so that it leaves its directory", errors.MetadataInvalid)
def layer_traverses() -> bytes:
    return with_fields(layers=[["../../unet", 8], ["up_blocks.1", 12]])


@hostile("names an encoder by an attribute that Python keeps for itself", errors.MetadataInvalid)
def encoder_is_dunder() -> bytes:
    return with_fields(encoders=[["__class__", 6]])


@hostile("declares one layer twice", errors.MetadataInvalid)
def layer_twice() -> bytes:
    return with_fields(layers=[["up_blocks.1", 8], ["up_blocks.1", 12]])


@hostile("declares no layer", errors.MetadataInvalid)
def layers_empty() -> bytes:
    return with_fields(layers=[])


@hostile("declares more layers than any base model has", errors.MetadataInvalid)
def layers_too_many() -> bytes:
    return with_fields(layers=[[f"a{i}", 1] for i in range(limits.MAX_LAYERS + 1)])


@hostile("turns 64 KiB into 70 MB: a long suffix on thousands of layers", errors.MetadataInvalid)
def layer_suffix_bomb() -> bytes:
    return with_fields(layer_suffix=".a" * 12_000, layers=[["b", 1]] * 3_000)


@hostile("declares a layer of 2^40 outputs", errors.MetadataInvalid)
def layer_width_huge() -> bytes:
    return with_fields(layers=[["down_blocks.0", 1 << 40], ["up_blocks.1", 12]])


@hostile("declares a layer of -8 outputs, to move the others", errors.MetadataInvalid)
def layer_width_negative() -> bytes:
    return with_fields(layers=[["down_blocks.0", -8], ["up_blocks.1", 28]])


@hostile("declares a width as text", errors.MetadataInvalid)
def layer_width_text() -> bytes:
    return with_fields(layers=[["down_blocks.0", "8"], ["up_blocks.1", 12]])


@hostile("makes the layers an object, whose order is nobody's promise", errors.MetadataInvalid)
def layers_are_object() -> bytes:
    return with_fields(layers={"down_blocks.0": 8, "up_blocks.1": 12})


@hostile("clears the terminal of whoever lists it", errors.MetadataInvalid)
def placeholder_with_escape() -> bytes:
    return with_fields(placeholder="\x1b[2J")


@hostile("makes a log line of its own", errors.MetadataInvalid)
def placeholder_with_newline() -> bytes:
    return with_fields(placeholder="tom\nERROR")


@hostile("spoils a prompt's words by a placeholder of two", errors.MetadataInvalid)
def placeholder_of_two_words() -> bytes:
    return with_fields(placeholder="tom and")


@hostile(
    "shows another super-category than it says, by right-to-left override", errors.MetadataInvalid
)
def super_category_reversed() -> bytes:
    return with_fields(super_category="\u202etac")


@hostile("looks like 'café' and is another string (not NFC)", errors.MetadataInvalid)
def super_category_decomposed() -> bytes:
    return with_fields(super_category="cafe\u0301")


@hostile("holds half a character, which cannot be written as UTF-8", errors.MetadataInvalid)
def super_category_surrogate() -> bytes:
    return with_metadata_replaced('"cat"', '"\\ud800"')


@hostile("makes a super-category of 30 000 letters", errors.MetadataInvalid)
def super_category_long() -> bytes:
    return with_fields(super_category="a" * 30_000)


@hostile("suggests a bias of NaN, which turns every image black", errors.MetadataInvalid)
def bias_nan() -> bytes:
    return with_metadata_replaced('"bias":0.7', '"bias":NaN')


@hostile("suggests a bias of true", errors.MetadataInvalid)
def bias_true() -> bytes:
    return with_fields(bias=True)


@hostile("suggests a bias that leaves the gate open for every word", errors.MetadataInvalid)
def bias_out_of_range() -> bytes:
    return with_fields(bias=-1000.0)


@hostile("suggests a temperature of zero, to divide by", errors.MetadataInvalid)
def temperature_zero() -> bytes:
    return with_fields(temperature=0.0)


@hostile("suggests a temperature that overflows to infinity", errors.MetadataInvalid)
def temperature_infinite() -> bytes:
    return with_metadata_replaced('"temperature":0.15', '"temperature":1e999')


@hostile("hides a structure in the training summary", errors.MetadataInvalid)
def training_nested() -> bytes:
    return with_fields(training={"images": ["a", "b"]})


@hostile("fills the training summary with a thousand entries", errors.MetadataInvalid)
def training_too_many() -> bytes:
    return with_fields(training={f"k{i:04}": i for i in range(1_000)})


@hostile("keeps an integer that doubles cannot hold", errors.MetadataInvalid)
def training_integer_huge() -> bytes:
    return with_fields(training={"steps": 2**53})


# --- the tensors, as the header describes them ---------------------------------------------------


@hostile("names a tensor so that a careless extractor writes outside", errors.UnexpectedTensor)
def tensor_traverses() -> bytes:
    entry = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
    return pack(compact({**document(), "../../.ssh/authorized_keys": entry}))


@hostile("carries a cargo: one tensor more", errors.UnexpectedTensor)
def tensor_added() -> bytes:
    end = len(PAYLOAD)
    entry = {"dtype": "F16", "shape": [8], "data_offsets": [end, end + 16]}
    return pack(compact({**document(), "cargo": entry}), PAYLOAD + bytes(16))


@hostile("brings keys although its key lock is LOCAL", errors.UnexpectedTensor)
def keys_in_local() -> bytes:
    described = metadata(key_lock="TRAINED_K")
    return pack(
        file_bytes(described)[8 : read_header(file_bytes(described)).payload_offset].replace(
            b"TRAINED_K", b"LOCAL"
        ),
        file_bytes(described)[read_header(file_bytes(described)).payload_offset :],
    )


@hostile("fills 64 KiB with empty tensors", errors.UnexpectedTensor)
def tensors_too_many() -> bytes:
    entry = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
    return pack(compact(document() | {f"t{i}": entry for i in range(1_100)}))


@hostile("lacks the direction that the edit projects out", errors.MissingTensor)
def target_input_missing() -> bytes:
    changed = document()
    del changed["target_input"]
    return pack(compact(changed))


@hostile("has no tensors at all", errors.MissingTensor)
def tensors_absent() -> bytes:
    return pack(compact({"__metadata__": document()["__metadata__"]}), b"")


@hostile("promises trained keys and brings none", errors.MissingTensor)
def keys_missing() -> bytes:
    return with_fields(key_lock="TRAINED_K")


@hostile("declares a text encoder without an embedding for it", errors.MissingTensor)
def embedding_missing() -> bytes:
    return with_fields(encoders=[["text_encoder", 6], ["text_encoder_2", 6]])


@hostile("stores bfloat16, which fits the same bytes and means other numbers", errors.WrongDtype)
def dtype_bfloat16() -> bytes:
    return with_tensor("value_output", dtype="BF16")


@hostile("stores eight bytes a value over its neighbours", errors.WrongDtype)
def dtype_float64() -> bytes:
    return with_tensor("value_output", dtype="F64")


@hostile("invents a dtype", errors.WrongDtype)
def dtype_invented() -> bytes:
    return with_tensor("value_output", dtype="F16;rm -rf /")


@hostile("declares float32 in the metadata over float16 tensors", errors.WrongDtype)
def dtype_of_metadata_differs() -> bytes:
    return with_fields(dtype="float32")


@hostile("declares integers", errors.MetadataInvalid)
def dtype_of_metadata_integer() -> bytes:
    return with_fields(dtype="int8")


@hostile("is as wide as another base model's", errors.WrongTensorShape)
def shape_of_other_base() -> bytes:
    return with_tensor("target_input", shape=[8])


@hostile("is empty in one dimension and vast in the other", errors.WrongTensorShape)
def shape_empty_and_vast() -> bytes:
    return with_tensor("target_input", shape=[0, 1 << 40])


@hostile("multiplies to 6 only after a 64-bit product overflows", errors.WrongTensorShape)
def shape_overflows() -> bytes:
    return with_tensor("target_input", shape=[(1 << 63) + 3, 2])


@hostile("has the right number of values in two dimensions, to broadcast", errors.WrongTensorShape)
def shape_of_two_dimensions() -> bytes:
    return with_tensor("target_input", shape=[1, 6])


@hostile("has a negative width", errors.WrongTensorShape)
def shape_negative() -> bytes:
    return with_tensor("target_input", shape=[-6])


@hostile("has a width of 6.0", errors.WrongTensorShape)
def shape_real() -> bytes:
    return with_tensor("target_input", shape=[6.0])


@hostile("shares bytes between two tensors", errors.OffsetsInvalid)
def offsets_overlap() -> bytes:
    first = document()["embedding.text_encoder"]["data_offsets"]
    return with_tensor("target_input", data_offsets=first)


@hostile("hides bytes between two tensors", errors.OffsetsInvalid)
def offsets_leave_gap() -> bytes:
    changed = document()
    begin, end = changed["value_output"]["data_offsets"]
    changed["value_output"]["data_offsets"] = [begin + 8, end + 8]
    return pack(compact(changed), PAYLOAD[:begin] + b"cargo!!!" + PAYLOAD[begin:])


@hostile("lies backwards", errors.OffsetsInvalid)
def offsets_reversed() -> bytes:
    return with_tensor(
        "target_input", data_offsets=document()["target_input"]["data_offsets"][::-1]
    )


@hostile("points beyond the end of the file", errors.OffsetsInvalid)
def offsets_beyond_end() -> bytes:
    return with_tensor("value_output", data_offsets=[1 << 20, (1 << 20) + 40])


@hostile("points before the beginning, into the header", errors.OffsetsInvalid)
def offsets_negative() -> bytes:
    return with_tensor("embedding.text_encoder", data_offsets=[-12, 0])


@hostile("wraps a 64-bit address", errors.OffsetsInvalid)
def offsets_overflow() -> bytes:
    return with_tensor("value_output", data_offsets=[(1 << 64) - 40, 1 << 64])


@hostile("swaps two tensors of one width, which a check of sizes cannot see", errors.OffsetsInvalid)
def offsets_swapped() -> bytes:
    changed = document()
    one, two = changed["target_input"], changed["super_category_encoding"]
    one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
    return pack(compact(changed))


@hostile("adds a field to a tensor's description", errors.MalformedHeader)
def tensor_with_field() -> bytes:
    return with_tensor("target_input", stride=[2])


@hostile("describes a tensor by a list", errors.MalformedHeader)
def tensor_is_list() -> bytes:
    return pack(compact(document() | {"target_input": ["F16", [6], [0, 12]]}))


# --- one adapter, another digest ----------------------------------------------------------------


@hostile("gives an adapter a second digest by spaces in the header", errors.NotCanonical)
def spaced() -> bytes:
    return pack(header_text() + " " * 8)


@hostile("gives an adapter a second digest by the order of its fields", errors.NotCanonical)
def fields_in_other_order() -> bytes:
    fields = json.loads(document()["__metadata__"]["perfuse"])
    return with_metadata_text(compact(dict(reversed(fields.items()))))


@hostile("gives an adapter a second digest by an escape", errors.NotCanonical)
def escaped() -> bytes:
    return with_metadata_replaced('"cat"', '"c\\u0061t"')


@hostile("gives an adapter a second digest by the spelling of a number", errors.NotCanonical)
def number_respelled() -> bytes:
    return with_metadata_replaced('"bias":0.7', '"bias":7e-1')


@hostile(
    "gives an adapter a second digest by another split of the layers' names", errors.NotCanonical
)
def suffix_unsplit() -> bytes:
    layers = [["down_blocks.0.attn2", 8], ["up_blocks.1.attn2", 12]]
    return with_fields(layer_suffix="", layers=layers)


# --- the base model and the values ----------------------------------------------------------------


@hostile("was trained on another base model", BaseModelMismatch, "base")
def base_model_of_another() -> bytes:
    return file_bytes(metadata(base_model=OTHER_BASE))


@hostile("spreads NaN from one value to every image", errors.NonFiniteTensor, "values")
def value_nan() -> bytes:
    return with_value("value_output", 0, b"\x00\x7e")


@hostile("hides infinity in the very last value", errors.NonFiniteTensor, "values")
def value_infinite_last() -> bytes:
    return with_value("value_output", 19, b"\x00\x7c")


@hostile("hides minus infinity in the word embedding", errors.NonFiniteTensor, "values")
def value_minus_infinite() -> bytes:
    return with_value("embedding.text_encoder", 3, b"\x00\xfc")


@hostile("uses a NaN that only one low bit tells from infinity", errors.NonFiniteTensor, "values")
def value_signalling_nan() -> bytes:
    return with_value("super_category_encoding", 5, b"\x01\x7c")


@hostile("spreads NaN in float32", errors.NonFiniteTensor, "values")
def value_nan_float32() -> bytes:
    return with_value("value_output", 7, struct.pack("<f", float("nan")), "float32")


@hostile("hides infinity in float32", errors.NonFiniteTensor, "values")
def value_infinite_float32() -> bytes:
    return with_value("target_input", 0, struct.pack("<f", float("-inf")), "float32")


@hostile("divides zero by zero: a target input without direction", errors.ZeroTargetInput, "values")
def target_input_zero() -> bytes:
    span = HEADER.span("target_input")
    return VALID[: span.start] + bytes(12) + VALID[span.stop :]


@hostile("does the same with minus zero", errors.ZeroTargetInput, "values")
def target_input_minus_zero() -> bytes:
    span = HEADER.span("target_input")
    return VALID[: span.start] + b"\x00\x80" * 6 + VALID[span.stop :]


@hostile("is as large as a file may be, with NaN at its very end", errors.NonFiniteTensor, "values")
def largest_with_nan() -> bytes:
    layers = tuple(Layer(f"layer.{i}", limits.MAX_WIDTH) for i in range(63))
    data = file_bytes(metadata(layers=layers, dtype="float32"))
    return data[:-4] + struct.pack("<f", float("nan"))
