"""The values of an adapter, judged without torch or numpy."""

from __future__ import annotations

from perfuse.adapter.errors import NonFiniteTensor, TrailingBytes, Truncated, ZeroTargetInput
from perfuse.adapter.header import AdapterHeader

# Values are little-endian. NaN and infinity are those whose exponent bits are all ones:
# in float16 bits 14..10, all in the second byte; in float32 bits 30..23, in the fourth and third.
_F16_HIGH = bytes(byte & 0x7C == 0x7C for byte in range(256))
_F32_HIGH = bytes(byte & 0x7F == 0x7F for byte in range(256))
_F32_NEXT = bytes(byte & 0x80 == 0x80 for byte in range(256))
_WITHOUT_SIGN = bytes(byte & 0x7F for byte in range(256))


def check_finite(header: AdapterHeader, data: bytes) -> None:
    """Refuses a file from whose values no finite edit can be made.

    Args:
        header: the header of `data`, from `read_header(data)`.
        data: the whole file.

    Raises:
        NonFiniteTensor: naming the tensor and the index of its first NaN or infinity.
        ZeroTargetInput: the target input is all zeros; the edit (paper Eq. 3) divides by its norm.
        Truncated, TrailingBytes: `data` is not the file that `header` was read from.
    """
    if len(data) != header.total_size:
        kind = Truncated if len(data) < header.total_size else TrailingBytes
        raise kind(f"{len(data)} bytes were given with a header for {header.total_size}")
    for tensor in header.tensors:
        values = data[header.span(tensor.name)]
        index = _first_not_finite(values, tensor.dtype)
        if index is not None:
            raise NonFiniteTensor(
                f"tensor {tensor.name!r} holds NaN or infinity at index {index}; every value must "
                "be finite. Train the concept again"
            )
    width = 2 if header.metadata.dtype == "float16" else 4
    if _all_zero(data[header.span("target_input")], width):
        raise ZeroTargetInput(
            "target_input is all zeros; it must have a direction, for the edit divides by its "
            "norm. Train the concept again"
        )


def _first_not_finite(values: bytes, dtype: str) -> int | None:
    if dtype == "F16":
        index = values[1::2].translate(_F16_HIGH).find(1)
        return None if index < 0 else index
    # One comparison of long integers instead of a loop over the values.
    high = int.from_bytes(values[3::4].translate(_F32_HIGH), "little")
    next_to_high = int.from_bytes(values[2::4].translate(_F32_NEXT), "little")
    both = high & next_to_high
    return None if both == 0 else (both & -both).bit_length() // 8


def _all_zero(values: bytes, width: int) -> bool:
    # Minus zero is zero too: its only set bit is the sign.
    signs = values[width - 1 :: width].translate(_WITHOUT_SIGN)
    return not any(signs) and all(not any(values[at::width]) for at in range(width - 1))
