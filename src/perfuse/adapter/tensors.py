"""An adapter with its tensors: what training makes, files keep and rendering uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike

import torch
from safetensors.torch import load
from torch import Tensor

from perfuse.adapter.errors import (
    MissingTensor,
    NonFiniteTensor,
    UnexpectedTensor,
    WrongDtype,
    WrongTensorShape,
)
from perfuse.adapter.file import read_whole, write_atomically
from perfuse.adapter.finite import check_finite
from perfuse.adapter.header import AdapterMetadata, digest, encode_header, read_header

_TORCH_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_LITTLE_ENDIAN = {"float16": "<f2", "float32": "<f4"}


@dataclass(frozen=True, eq=False)
class Adapter:
    """One concept on one base model (paper Section 4); compare adapters by `digest`.

    Attributes:
        metadata: names, widths and settings; the shapes below follow from it.
        target_input: i*, [d].
        super_category_encoding: e_super, [d]; o*_K = W_K e_super is rebuilt from it.
        embeddings: per text encoder, the placeholder's word embedding, [d_enc].
        value_output: o*_V of every layer in declared order, [Σ d_l].
        key_output: o*_K likewise, [Σ d_l], when the key lock is TRAINED_K; else None.

    Raises:
        MissingTensor, UnexpectedTensor, WrongTensorShape, WrongDtype: the tensors are not those
            that the metadata declares. Any floating dtype and device will do.
    """

    metadata: AdapterMetadata
    target_input: Tensor
    super_category_encoding: Tensor
    embeddings: dict[str, Tensor]
    value_output: Tensor
    key_output: Tensor | None = None

    def __post_init__(self) -> None:
        widths = self.metadata.tensor_widths()
        tensors = self._tensors()
        if missing := sorted(widths.keys() - tensors.keys()):
            raise MissingTensor(
                f"the adapter lacks {', '.join(missing)}; its key lock is "
                f"{self.metadata.key_lock} and its encoders are "
                f"{', '.join(encoder.name for encoder in self.metadata.encoders)}"
            )
        if unexpected := sorted(tensors.keys() - widths.keys()):
            raise UnexpectedTensor(
                f"the adapter holds {', '.join(unexpected)}; with key lock "
                f"{self.metadata.key_lock} it has only {', '.join(widths)}"
            )
        for name, width in widths.items():
            tensor = tensors[name]
            if tuple(tensor.shape) != (width,):
                raise WrongTensorShape(
                    f"{name} has the shape {list(tensor.shape)}; the metadata declares [{width}]"
                )
            if not tensor.is_floating_point():
                raise WrongDtype(f"{name} is {tensor.dtype}; it must be a floating-point tensor")

    def value_outputs(self) -> tuple[Tensor, ...]:
        """o*_V per layer in declared order, each [d_l]; views of `value_output`."""
        return self._per_layer(self.value_output)

    def key_outputs(self) -> tuple[Tensor, ...] | None:
        """o*_K per layer in declared order, each [d_l], or None when the keys are locked."""
        if self.key_output is None:
            return None
        return self._per_layer(self.key_output)

    @property
    def digest(self) -> str:
        """The digest of the file that `to_bytes()` makes, computed at each call.

        It identifies the values as that file rounds them. Tensors held more exactly, as after
        training, become those values by `Adapter.from_bytes(adapter.to_bytes())`.
        """
        return digest(self.to_bytes())

    def to_bytes(self, dtype: str | None = None) -> bytes:
        """The adapter as a file: the same adapter gives the same bytes in any process.

        Args:
            dtype: "float16" or "float32"; by default what the metadata says.

        Raises:
            NonFiniteTensor: a value is not finite, or leaves the range of float16.
            ZeroTargetInput: the target input is all zeros.
            HeaderTooLarge, FileTooLarge: beyond the format's limits.
        """
        metadata = self.metadata if dtype is None else replace(self.metadata, dtype=dtype)
        tensors = self._tensors()
        parts = [encode_header(metadata)]
        for name in metadata.tensor_widths():
            # By way of float32, so that a float64 value is rounded alike on every device.
            exact = tensors[name].detach().to("cpu", torch.float32)
            stored = exact.to(_TORCH_DTYPES[metadata.dtype])
            if bool(exact.isfinite().all()) and not bool(stored.isfinite().all()):
                raise NonFiniteTensor(
                    f"{name} reaches {float(exact.abs().max()):.6g}, beyond float16's 65504. Write "
                    "the adapter with dtype='float32'"
                )
            parts.append(stored.numpy().astype(_LITTLE_ENDIAN[metadata.dtype]).tobytes())
        data = b"".join(parts)
        check_finite(read_header(data), data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes, *, expect_base: str | None = None) -> Adapter:
        """Reads a file, judging the header first, then the values, before any tensor is made.

        Args:
            data: the whole file.
            expect_base: fingerprint of the base model at hand.

        Returns:
            The adapter, its tensors on the CPU and in the file's dtype.

        Raises:
            AdapterRefused: as one of the cases of `perfuse.adapter.errors`.
            BaseModelMismatch: the adapter is for another base model than `expect_base`.
        """
        header = read_header(data)
        if expect_base is not None:
            header.require_base(expect_base)
        check_finite(header, data)
        tensors: dict[str, Tensor] = load(data)
        return cls(
            metadata=header.metadata,
            target_input=tensors["target_input"],
            super_category_encoding=tensors["super_category_encoding"],
            embeddings={
                encoder.name: tensors[f"embedding.{encoder.name}"]
                for encoder in header.metadata.encoders
            },
            value_output=tensors["value_output"],
            key_output=tensors.get("key_output"),
        )

    @classmethod
    def read(cls, path: str | PathLike[str], *, expect_base: str | None = None) -> Adapter:
        """`from_bytes` of a file; a path with nothing there is `NotFound`."""
        return cls.from_bytes(read_whole(path), expect_base=expect_base)

    def write(self, path: str | PathLike[str], dtype: str | None = None) -> str:
        """`to_bytes` into a file, whole or not at all; returns the file's digest."""
        data = self.to_bytes(dtype)
        write_atomically(path, data)
        return digest(data)

    def _per_layer(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.split_with_sizes(outputs, [layer.width for layer in self.metadata.layers])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"embedding.{name}": tensor for name, tensor in self.embeddings.items()}
        tensors["super_category_encoding"] = self.super_category_encoding
        tensors["target_input"] = self.target_input
        tensors["value_output"] = self.value_output
        if self.key_output is not None:
            tensors["key_output"] = self.key_output
        return tensors
