import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErasureState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERASURE_STATE_UNSPECIFIED: _ClassVar[ErasureState]
    ERASURE_STATE_ERASING: _ClassVar[ErasureState]
    ERASURE_STATE_COMPLETE: _ClassVar[ErasureState]

class ErasedAdapterState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERASED_ADAPTER_STATE_UNSPECIFIED: _ClassVar[ErasedAdapterState]
    ERASED_ADAPTER_STATE_PENDING: _ClassVar[ErasedAdapterState]
    ERASED_ADAPTER_STATE_REMOVED: _ClassVar[ErasedAdapterState]
    ERASED_ADAPTER_STATE_KEPT: _ClassVar[ErasedAdapterState]
ERASURE_STATE_UNSPECIFIED: ErasureState
ERASURE_STATE_ERASING: ErasureState
ERASURE_STATE_COMPLETE: ErasureState
ERASED_ADAPTER_STATE_UNSPECIFIED: ErasedAdapterState
ERASED_ADAPTER_STATE_PENDING: ErasedAdapterState
ERASED_ADAPTER_STATE_REMOVED: ErasedAdapterState
ERASED_ADAPTER_STATE_KEPT: ErasedAdapterState

class ErasedAdapter(_message.Message):
    __slots__ = ("digest", "size_bytes", "state", "holder_count", "preview")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_COUNT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size_bytes: int
    state: ErasedAdapterState
    holder_count: int
    preview: bool
    def __init__(self, digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., state: _Optional[_Union[ErasedAdapterState, str]] = ..., holder_count: _Optional[int] = ..., preview: _Optional[bool] = ...) -> None: ...

class TrainerErasure(_message.Message):
    __slots__ = ("run_count", "ended_run_count", "image_set_count", "kept_image_set_count", "file_count", "confirm_time")
    RUN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENDED_RUN_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SET_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEPT_IMAGE_SET_COUNT_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_TIME_FIELD_NUMBER: _ClassVar[int]
    run_count: int
    ended_run_count: int
    image_set_count: int
    kept_image_set_count: int
    file_count: int
    confirm_time: _timestamp_pb2.Timestamp
    def __init__(self, run_count: _Optional[int] = ..., ended_run_count: _Optional[int] = ..., image_set_count: _Optional[int] = ..., kept_image_set_count: _Optional[int] = ..., file_count: _Optional[int] = ..., confirm_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Erasure(_message.Message):
    __slots__ = ("name", "concept", "uid", "eraser", "erase_time", "state", "complete_time", "version_count", "alias_count", "grant_count", "consent_count", "adapters", "trainer", "unconfirmed", "receipt", "receipt_mac")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ERASER_FIELD_NUMBER: _ClassVar[int]
    ERASE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_COUNT_FIELD_NUMBER: _ClassVar[int]
    GRANT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONSENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_MAC_FIELD_NUMBER: _ClassVar[int]
    name: str
    concept: str
    uid: str
    eraser: str
    erase_time: _timestamp_pb2.Timestamp
    state: ErasureState
    complete_time: _timestamp_pb2.Timestamp
    version_count: int
    alias_count: int
    grant_count: int
    consent_count: int
    adapters: _containers.RepeatedCompositeFieldContainer[ErasedAdapter]
    trainer: TrainerErasure
    unconfirmed: _containers.RepeatedScalarFieldContainer[str]
    receipt: str
    receipt_mac: str
    def __init__(self, name: _Optional[str] = ..., concept: _Optional[str] = ..., uid: _Optional[str] = ..., eraser: _Optional[str] = ..., erase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[ErasureState, str]] = ..., complete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version_count: _Optional[int] = ..., alias_count: _Optional[int] = ..., grant_count: _Optional[int] = ..., consent_count: _Optional[int] = ..., adapters: _Optional[_Iterable[_Union[ErasedAdapter, _Mapping]]] = ..., trainer: _Optional[_Union[TrainerErasure, _Mapping]] = ..., unconfirmed: _Optional[_Iterable[str]] = ..., receipt: _Optional[str] = ..., receipt_mac: _Optional[str] = ...) -> None: ...

class EraseConceptRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetErasureRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListErasuresRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "unconfirmed_only", "with_adapters", "after")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_ONLY_FIELD_NUMBER: _ClassVar[int]
    WITH_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    unconfirmed_only: bool
    with_adapters: bool
    after: _timestamp_pb2.Timestamp
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., unconfirmed_only: _Optional[bool] = ..., with_adapters: _Optional[bool] = ..., after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListErasuresResponse(_message.Message):
    __slots__ = ("erasures", "next_page_token")
    ERASURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    erasures: _containers.RepeatedCompositeFieldContainer[Erasure]
    next_page_token: str
    def __init__(self, erasures: _Optional[_Iterable[_Union[Erasure, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ConfirmErasureRequest(_message.Message):
    __slots__ = ("name", "trainer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    name: str
    trainer: TrainerErasure
    def __init__(self, name: _Optional[str] = ..., trainer: _Optional[_Union[TrainerErasure, _Mapping]] = ...) -> None: ...
