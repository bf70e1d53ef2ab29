from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_ARGUMENT: _ClassVar[ErrorReason]
    ERROR_REASON_WRONG_SHAPE: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_FINITE: _ClassVar[ErrorReason]
    ERROR_REASON_DEPENDENT_CONCEPTS: _ClassVar[ErrorReason]
    ERROR_REASON_ADAPTER_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_PICTURE_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_PROMPT_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_FAILED_PRECONDITION: _ClassVar[ErrorReason]
    ERROR_REASON_BASE_MODEL_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_SINGULAR_COVARIANCE: _ClassVar[ErrorReason]
    ERROR_REASON_BASE_MODEL_UNSUITABLE: _ClassVar[ErrorReason]
    ERROR_REASON_TRAINING_DIVERGED: _ClassVar[ErrorReason]
    ERROR_REASON_DATA_LOSS: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_ARGUMENT: ErrorReason
ERROR_REASON_WRONG_SHAPE: ErrorReason
ERROR_REASON_NOT_FINITE: ErrorReason
ERROR_REASON_DEPENDENT_CONCEPTS: ErrorReason
ERROR_REASON_ADAPTER_REFUSED: ErrorReason
ERROR_REASON_PICTURE_REFUSED: ErrorReason
ERROR_REASON_PROMPT_REFUSED: ErrorReason
ERROR_REASON_NOT_FOUND: ErrorReason
ERROR_REASON_FAILED_PRECONDITION: ErrorReason
ERROR_REASON_BASE_MODEL_MISMATCH: ErrorReason
ERROR_REASON_SINGULAR_COVARIANCE: ErrorReason
ERROR_REASON_BASE_MODEL_UNSUITABLE: ErrorReason
ERROR_REASON_TRAINING_DIVERGED: ErrorReason
ERROR_REASON_DATA_LOSS: ErrorReason
