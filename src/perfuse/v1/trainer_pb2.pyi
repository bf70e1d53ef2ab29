import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from perfuse.v1 import audit_pb2 as _audit_pb2
from perfuse.v1 import quotas_pb2 as _quotas_pb2
from perfuse.v1 import registry_pb2 as _registry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingRunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAINING_RUN_STATE_UNSPECIFIED: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_QUEUED: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_RUNNING: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_CANCELLING: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_SUCCEEDED: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_FAILED: _ClassVar[TrainingRunState]
    TRAINING_RUN_STATE_CANCELLED: _ClassVar[TrainingRunState]

class MaskSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_SOURCE_UNSPECIFIED: _ClassVar[MaskSource]
    MASK_SOURCE_NONE: _ClassVar[MaskSource]
    MASK_SOURCE_UPLOADED: _ClassVar[MaskSource]
    MASK_SOURCE_CLIPSEG: _ClassVar[MaskSource]
    MASK_SOURCE_CROSS_ATTENTION: _ClassVar[MaskSource]
TRAINING_RUN_STATE_UNSPECIFIED: TrainingRunState
TRAINING_RUN_STATE_QUEUED: TrainingRunState
TRAINING_RUN_STATE_RUNNING: TrainingRunState
TRAINING_RUN_STATE_CANCELLING: TrainingRunState
TRAINING_RUN_STATE_SUCCEEDED: TrainingRunState
TRAINING_RUN_STATE_FAILED: TrainingRunState
TRAINING_RUN_STATE_CANCELLED: TrainingRunState
MASK_SOURCE_UNSPECIFIED: MaskSource
MASK_SOURCE_NONE: MaskSource
MASK_SOURCE_UPLOADED: MaskSource
MASK_SOURCE_CLIPSEG: MaskSource
MASK_SOURCE_CROSS_ATTENTION: MaskSource

class ImageSet(_message.Message):
    __slots__ = ("name", "uid", "images", "keep", "ttl", "expire_time", "create_time", "update_time", "etag", "emptied")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    EMPTIED_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    keep: bool
    ttl: _duration_pb2.Duration
    expire_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    emptied: bool
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., keep: _Optional[bool] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., emptied: _Optional[bool] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("file_name", "digest", "width", "height", "has_mask")
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    HAS_MASK_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    digest: str
    width: int
    height: int
    has_mask: bool
    def __init__(self, file_name: _Optional[str] = ..., digest: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., has_mask: _Optional[bool] = ...) -> None: ...

class CreateImageSetRequest(_message.Message):
    __slots__ = ("parent", "image_set_id", "image_set", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SET_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    image_set_id: str
    image_set: ImageSet
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., image_set_id: _Optional[str] = ..., image_set: _Optional[_Union[ImageSet, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UploadImagesRequest(_message.Message):
    __slots__ = ("image_set", "header", "chunk")
    IMAGE_SET_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    image_set: str
    header: ImageHeader
    chunk: bytes
    def __init__(self, image_set: _Optional[str] = ..., header: _Optional[_Union[ImageHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ImageHeader(_message.Message):
    __slots__ = ("file_name", "digest", "size_bytes", "is_mask")
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_MASK_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    digest: str
    size_bytes: int
    is_mask: bool
    def __init__(self, file_name: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., is_mask: _Optional[bool] = ...) -> None: ...

class GetImageSetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListImageSetsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "order_by")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListImageSetsResponse(_message.Message):
    __slots__ = ("image_sets", "next_page_token")
    IMAGE_SETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    image_sets: _containers.RepeatedCompositeFieldContainer[ImageSet]
    next_page_token: str
    def __init__(self, image_sets: _Optional[_Iterable[_Union[ImageSet, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteImageSetRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class TrainingRun(_message.Message):
    __slots__ = ("name", "uid", "concept", "image_set", "base_model", "super_category", "key_lock", "settings", "description", "labels", "state", "step", "loss", "validations", "version", "digest", "error", "attempt", "last_sequence", "create_time", "update_time", "start_time", "end_time", "etag")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SET_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SUPER_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    KEY_LOCK_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    concept: str
    image_set: str
    base_model: str
    super_category: str
    key_lock: _registry_pb2.KeyLock
    settings: TrainingSettings
    description: str
    labels: _containers.ScalarMap[str, str]
    state: TrainingRunState
    step: int
    loss: float
    validations: _containers.RepeatedCompositeFieldContainer[Validation]
    version: str
    digest: str
    error: TrainingRunError
    attempt: int
    last_sequence: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., concept: _Optional[str] = ..., image_set: _Optional[str] = ..., base_model: _Optional[str] = ..., super_category: _Optional[str] = ..., key_lock: _Optional[_Union[_registry_pb2.KeyLock, str]] = ..., settings: _Optional[_Union[TrainingSettings, _Mapping]] = ..., description: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., state: _Optional[_Union[TrainingRunState, str]] = ..., step: _Optional[int] = ..., loss: _Optional[float] = ..., validations: _Optional[_Iterable[_Union[Validation, _Mapping]]] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., error: _Optional[_Union[TrainingRunError, _Mapping]] = ..., attempt: _Optional[int] = ..., last_sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class TrainingSettings(_message.Message):
    __slots__ = ("steps", "batch", "seed", "mask_source", "validate_every", "patience", "flip", "output_rate", "embedding_rate", "bias", "temperature", "render_bias", "render_temperature", "previews", "exclusive")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MASK_SOURCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_EVERY_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    FLIP_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_RATE_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_RATE_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    RENDER_BIAS_FIELD_NUMBER: _ClassVar[int]
    RENDER_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    steps: int
    batch: int
    seed: int
    mask_source: MaskSource
    validate_every: int
    patience: int
    flip: float
    output_rate: float
    embedding_rate: float
    bias: float
    temperature: float
    render_bias: float
    render_temperature: float
    previews: PreviewSettings
    exclusive: bool
    def __init__(self, steps: _Optional[int] = ..., batch: _Optional[int] = ..., seed: _Optional[int] = ..., mask_source: _Optional[_Union[MaskSource, str]] = ..., validate_every: _Optional[int] = ..., patience: _Optional[int] = ..., flip: _Optional[float] = ..., output_rate: _Optional[float] = ..., embedding_rate: _Optional[float] = ..., bias: _Optional[float] = ..., temperature: _Optional[float] = ..., render_bias: _Optional[float] = ..., render_temperature: _Optional[float] = ..., previews: _Optional[_Union[PreviewSettings, _Mapping]] = ..., exclusive: _Optional[bool] = ...) -> None: ...

class PreviewSettings(_message.Message):
    __slots__ = ("prompts", "every", "steps", "guidance")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    every: int
    steps: int
    guidance: float
    def __init__(self, prompts: _Optional[_Iterable[str]] = ..., every: _Optional[int] = ..., steps: _Optional[int] = ..., guidance: _Optional[float] = ...) -> None: ...

class TrainingRunError(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CreateTrainingRunRequest(_message.Message):
    __slots__ = ("parent", "training_run_id", "training_run", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    training_run_id: str
    training_run: TrainingRun
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., training_run_id: _Optional[str] = ..., training_run: _Optional[_Union[TrainingRun, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetTrainingRunRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListTrainingRunsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "order_by")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListTrainingRunsResponse(_message.Message):
    __slots__ = ("training_runs", "next_page_token")
    TRAINING_RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    training_runs: _containers.RepeatedCompositeFieldContainer[TrainingRun]
    next_page_token: str
    def __init__(self, training_runs: _Optional[_Iterable[_Union[TrainingRun, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelTrainingRunRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteTrainingRunRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class WatchTrainingRunRequest(_message.Message):
    __slots__ = ("name", "after_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_sequence: int
    def __init__(self, name: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchTrainingRunResponse(_message.Message):
    __slots__ = ("sequence", "event_time", "state_change", "progress", "validation", "similarity", "preview")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    event_time: _timestamp_pb2.Timestamp
    state_change: StateChange
    progress: TrainingProgress
    validation: Validation
    similarity: Similarity
    preview: PreviewPicture
    def __init__(self, sequence: _Optional[int] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., progress: _Optional[_Union[TrainingProgress, _Mapping]] = ..., validation: _Optional[_Union[Validation, _Mapping]] = ..., similarity: _Optional[_Union[Similarity, _Mapping]] = ..., preview: _Optional[_Union[PreviewPicture, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "error", "version", "attempt")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    state: TrainingRunState
    error: TrainingRunError
    version: str
    attempt: int
    def __init__(self, state: _Optional[_Union[TrainingRunState, str]] = ..., error: _Optional[_Union[TrainingRunError, _Mapping]] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class TrainingProgress(_message.Message):
    __slots__ = ("step", "steps", "loss", "steps_per_second", "remaining_seconds")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REMAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    loss: float
    steps_per_second: float
    remaining_seconds: float
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., steps_per_second: _Optional[float] = ..., remaining_seconds: _Optional[float] = ...) -> None: ...

class Validation(_message.Message):
    __slots__ = ("step", "loss", "best")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    step: int
    loss: float
    best: bool
    def __init__(self, step: _Optional[int] = ..., loss: _Optional[float] = ..., best: _Optional[bool] = ...) -> None: ...

class Similarity(_message.Message):
    __slots__ = ("step", "cosine")
    STEP_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    step: int
    cosine: float
    def __init__(self, step: _Optional[int] = ..., cosine: _Optional[float] = ...) -> None: ...

class PreviewPicture(_message.Message):
    __slots__ = ("step", "prompt", "picture")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    step: int
    prompt: str
    picture: bytes
    def __init__(self, step: _Optional[int] = ..., prompt: _Optional[str] = ..., picture: _Optional[bytes] = ...) -> None: ...

class CheckTrainingImageRequest(_message.Message):
    __slots__ = ("name", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class CheckTrainingImageResponse(_message.Message):
    __slots__ = ("used", "image_count")
    USED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    used: bool
    image_count: int
    def __init__(self, used: _Optional[bool] = ..., image_count: _Optional[int] = ...) -> None: ...

class GetTrainingUsageRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetTrainingUsageResponse(_message.Message):
    __slots__ = ("quotas",)
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    quotas: _containers.RepeatedCompositeFieldContainer[_quotas_pb2.QuotaUsage]
    def __init__(self, quotas: _Optional[_Iterable[_Union[_quotas_pb2.QuotaUsage, _Mapping]]] = ...) -> None: ...
