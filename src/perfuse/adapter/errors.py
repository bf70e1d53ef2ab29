"""Every way in which bytes can fail to be an adapter, as one tree.

AdapterRefused                 (perfuse.errors; status INVALID_ARGUMENT)
├── NotAFile                   a path that is a directory, a device or a pipe
├── FileTooLarge               more bytes than any adapter may have
├── Truncated                  fewer bytes than the file itself promises
├── TrailingBytes              more bytes than the file itself promises
├── HeaderTooLarge             a header longer than any adapter needs
├── MalformedHeader            a header that is not the JSON of a safetensors file
├── DuplicateKey               a JSON object that names a key twice
├── MetadataInvalid            a field missing, unknown, or outside its rule
├── UnknownFormatVersion       a format that this release does not read
├── UnexpectedTensor           a tensor that no adapter has
├── MissingTensor              a tensor that this adapter must have
├── WrongDtype                 a tensor stored as another number type than declared
├── WrongTensorShape           a tensor of another shape than declared (also a WrongShape)
├── OffsetsInvalid             a tensor anywhere but in its own place
├── NotCanonical               a valid header written in another form than the one form
├── NonFiniteTensor            NaN or infinity in a tensor (also a NotFinite)
└── ZeroTargetInput            a target input of zeros, by which nothing can be divided

An adapter for another base model is no malformed file: that is `perfuse.errors.BaseModelMismatch`.
"""

from __future__ import annotations

from perfuse.errors import AdapterRefused, NotFinite, WrongShape

_SHOWN_CHARACTERS = 80


class NotAFile(AdapterRefused):
    """The path names a directory, device or pipe where a regular file is due."""


class FileTooLarge(AdapterRefused):
    """The file has, or would have, more than `MAX_FILE_BYTES`."""


class Truncated(AdapterRefused):
    """The file ends before the header, or before the tensors that the header declares."""


class TrailingBytes(AdapterRefused):
    """Bytes follow the last tensor."""


class HeaderTooLarge(AdapterRefused):
    """The header has, or would have, more than `MAX_HEADER_BYTES`."""


class MalformedHeader(AdapterRefused):
    """The header is not JSON of the shape that safetensors prescribes."""


class DuplicateKey(AdapterRefused):
    """A JSON object names a key twice, so that two readers could read two adapters."""


class MetadataInvalid(AdapterRefused):
    """The `perfuse` metadata lacks a field, has an unknown one, or one that breaks its rule."""


class UnknownFormatVersion(AdapterRefused):
    """The file states a format version other than the one that this release reads."""


class UnexpectedTensor(AdapterRefused):
    """The header names a tensor that an adapter with this metadata does not have."""


class MissingTensor(AdapterRefused):
    """The header lacks a tensor that an adapter with this metadata must have."""


class WrongDtype(AdapterRefused):
    """A tensor is stored as another number type than the metadata declares."""


class WrongTensorShape(AdapterRefused, WrongShape):
    """A tensor has another shape than the metadata declares."""


class OffsetsInvalid(AdapterRefused):
    """A tensor's bytes overlap another's, leave a gap, or stand out of order."""


class NotCanonical(AdapterRefused):
    """The header says the right thing in other bytes than the format prescribes."""


class NonFiniteTensor(AdapterRefused, NotFinite):
    """A tensor holds NaN or infinity, or would once rounded to the file's number type."""


class ZeroTargetInput(AdapterRefused):
    """The target input is all zeros, so that the edit's similarity would be 0/0."""


def shown(value: object) -> str:
    """`value` as a message may quote it: ASCII only, and short whatever a file holds."""
    text = ascii(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"
