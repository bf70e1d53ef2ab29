import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from perfuse.v1 import quotas_pb2 as _quotas_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RenderLock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RENDER_LOCK_UNSPECIFIED: _ClassVar[RenderLock]
    RENDER_LOCK_LOCAL: _ClassVar[RenderLock]
    RENDER_LOCK_GLOBAL: _ClassVar[RenderLock]

class LongPrompt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONG_PROMPT_UNSPECIFIED: _ClassVar[LongPrompt]
    LONG_PROMPT_REFUSE: _ClassVar[LongPrompt]
    LONG_PROMPT_CHUNK: _ClassVar[LongPrompt]

class PictureFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PICTURE_FORMAT_UNSPECIFIED: _ClassVar[PictureFormat]
    PICTURE_FORMAT_PNG: _ClassVar[PictureFormat]
    PICTURE_FORMAT_JPEG: _ClassVar[PictureFormat]
    PICTURE_FORMAT_WEBP: _ClassVar[PictureFormat]
RENDER_LOCK_UNSPECIFIED: RenderLock
RENDER_LOCK_LOCAL: RenderLock
RENDER_LOCK_GLOBAL: RenderLock
LONG_PROMPT_UNSPECIFIED: LongPrompt
LONG_PROMPT_REFUSE: LongPrompt
LONG_PROMPT_CHUNK: LongPrompt
PICTURE_FORMAT_UNSPECIFIED: PictureFormat
PICTURE_FORMAT_PNG: PictureFormat
PICTURE_FORMAT_JPEG: PictureFormat
PICTURE_FORMAT_WEBP: PictureFormat

class RenderSettings(_message.Message):
    __slots__ = ("base_model", "prompt", "negative_prompt", "concepts", "key_lock", "seeds", "image_count", "width", "height", "steps", "guidance", "scheduler", "format", "long_prompt")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    KEY_LOCK_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LONG_PROMPT_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    prompt: str
    negative_prompt: str
    concepts: _containers.RepeatedCompositeFieldContainer[ConceptSettings]
    key_lock: RenderLock
    seeds: _containers.RepeatedScalarFieldContainer[int]
    image_count: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    format: PictureFormat
    long_prompt: LongPrompt
    def __init__(self, base_model: _Optional[str] = ..., prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., concepts: _Optional[_Iterable[_Union[ConceptSettings, _Mapping]]] = ..., key_lock: _Optional[_Union[RenderLock, str]] = ..., seeds: _Optional[_Iterable[int]] = ..., image_count: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., steps: _Optional[int] = ..., guidance: _Optional[float] = ..., scheduler: _Optional[str] = ..., format: _Optional[_Union[PictureFormat, str]] = ..., long_prompt: _Optional[_Union[LongPrompt, str]] = ...) -> None: ...

class ConceptSettings(_message.Message):
    __slots__ = ("placeholder", "bias", "temperature", "version")
    PLACEHOLDER_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    placeholder: str
    bias: float
    temperature: float
    version: str
    def __init__(self, placeholder: _Optional[str] = ..., bias: _Optional[float] = ..., temperature: _Optional[float] = ..., version: _Optional[str] = ...) -> None: ...

class RenderRequest(_message.Message):
    __slots__ = ("settings", "preview_every")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    settings: RenderSettings
    preview_every: int
    def __init__(self, settings: _Optional[_Union[RenderSettings, _Mapping]] = ..., preview_every: _Optional[int] = ...) -> None: ...

class RenderResponse(_message.Message):
    __slots__ = ("queued", "progress", "preview", "image")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    queued: Queued
    progress: Progress
    preview: Preview
    image: RenderedImage
    def __init__(self, queued: _Optional[_Union[Queued, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., image: _Optional[_Union[RenderedImage, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position", "expected_wait_seconds")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    position: int
    expected_wait_seconds: float
    def __init__(self, position: _Optional[int] = ..., expected_wait_seconds: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("image_index", "step", "steps")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    step: int
    steps: int
    def __init__(self, image_index: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("image_index", "step", "picture")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    step: int
    picture: bytes
    def __init__(self, image_index: _Optional[int] = ..., step: _Optional[int] = ..., picture: _Optional[bytes] = ...) -> None: ...

class RenderedImage(_message.Message):
    __slots__ = ("image_index", "picture", "format", "record")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    picture: bytes
    format: PictureFormat
    record: RenderRecord
    def __init__(self, image_index: _Optional[int] = ..., picture: _Optional[bytes] = ..., format: _Optional[_Union[PictureFormat, str]] = ..., record: _Optional[_Union[RenderRecord, _Mapping]] = ...) -> None: ...

class RenderRecord(_message.Message):
    __slots__ = ("base_model", "base_model_fingerprint", "prompt", "negative_prompt", "concepts", "key_lock", "plan_digest", "negative_plan_digest", "seed", "width", "height", "steps", "guidance", "scheduler", "release", "render_time", "chunk_count")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    KEY_LOCK_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RENDER_TIME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    base_model_fingerprint: str
    prompt: str
    negative_prompt: str
    concepts: _containers.RepeatedCompositeFieldContainer[RenderedConcept]
    key_lock: str
    plan_digest: str
    negative_plan_digest: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    release: str
    render_time: _timestamp_pb2.Timestamp
    chunk_count: int
    def __init__(self, base_model: _Optional[str] = ..., base_model_fingerprint: _Optional[str] = ..., prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., concepts: _Optional[_Iterable[_Union[RenderedConcept, _Mapping]]] = ..., key_lock: _Optional[str] = ..., plan_digest: _Optional[str] = ..., negative_plan_digest: _Optional[str] = ..., seed: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., steps: _Optional[int] = ..., guidance: _Optional[float] = ..., scheduler: _Optional[str] = ..., release: _Optional[str] = ..., render_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., chunk_count: _Optional[int] = ...) -> None: ...

class RenderedConcept(_message.Message):
    __slots__ = ("placeholder", "version", "digest", "bias", "temperature")
    PLACEHOLDER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    placeholder: str
    version: str
    digest: str
    bias: float
    temperature: float
    def __init__(self, placeholder: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., bias: _Optional[float] = ..., temperature: _Optional[float] = ...) -> None: ...

class GenerateImagesRequest(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: RenderSettings
    def __init__(self, settings: _Optional[_Union[RenderSettings, _Mapping]] = ...) -> None: ...

class GenerateImagesResponse(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[RenderedImage]
    def __init__(self, images: _Optional[_Iterable[_Union[RenderedImage, _Mapping]]] = ...) -> None: ...

class GetRendererStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRendererStatusResponse(_message.Message):
    __slots__ = ("base_models", "schedulers", "running_count", "waiting_count", "resident_adapter_count", "resident_adapter_bytes", "quotas")
    BASE_MODELS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULERS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_ADAPTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_ADAPTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    base_models: _containers.RepeatedCompositeFieldContainer[ResidentBaseModel]
    schedulers: _containers.RepeatedScalarFieldContainer[str]
    running_count: int
    waiting_count: int
    resident_adapter_count: int
    resident_adapter_bytes: int
    quotas: _containers.RepeatedCompositeFieldContainer[_quotas_pb2.QuotaUsage]
    def __init__(self, base_models: _Optional[_Iterable[_Union[ResidentBaseModel, _Mapping]]] = ..., schedulers: _Optional[_Iterable[str]] = ..., running_count: _Optional[int] = ..., waiting_count: _Optional[int] = ..., resident_adapter_count: _Optional[int] = ..., resident_adapter_bytes: _Optional[int] = ..., quotas: _Optional[_Iterable[_Union[_quotas_pb2.QuotaUsage, _Mapping]]] = ...) -> None: ...

class ResidentBaseModel(_message.Message):
    __slots__ = ("name", "fingerprint", "picture_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PICTURE_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    picture_size: int
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., picture_size: _Optional[int] = ...) -> None: ...
