"""The typed client of Perfuse's services.

    from perfuse.client import Client

    with Client() as perfuse:
        run = perfuse.train("tom", ["pictures/tom"], super_category="cat")
        done = perfuse.training_runs.wait(run.name)
        for image in perfuse.render("a photo of <tom> in the snow", count=4):
            image.save(f"tom-{image.image_index}")

`AsyncClient` has the same methods as coroutines and asynchronous iterators. A client is shared by
any number of threads, an `AsyncClient` by the tasks of one loop. What a service refuses is raised
as one of the exceptions in `perfuse.errors`.
"""

from perfuse.client._async.client import AsyncClient
from perfuse.client._sync.client import Client
from perfuse.client.attachments import CurvePoint, DownloadedPreview, NewPreview, VersionPreview
from perfuse.client.connection import Connection
from perfuse.client.faults import from_rpc_error
from perfuse.client.quotas import QuotaUsage
from perfuse.client.records import AuditEvent, Consent, ErasedAdapter, Erasure
from perfuse.client.rendering import (
    ConceptSettings,
    Preview,
    Progress,
    Queued,
    RenderedConcept,
    RenderedImage,
    RendererStatus,
    RenderEvent,
    RenderRecord,
    RenderSettings,
    ResidentBaseModel,
)
from perfuse.client.resources import (
    Alias,
    AliasMove,
    BaseModel,
    Blend,
    Compatibility,
    Concept,
    ConceptPair,
    Download,
    Grant,
    Version,
)
from perfuse.client.training import (
    Image,
    ImageSet,
    PreviewPicture,
    PreviewSettings,
    RunError,
    Similarity,
    StateChange,
    TrainingEvent,
    TrainingProgress,
    TrainingRun,
    TrainingSettings,
    Validation,
)
from perfuse.client.uploads import Picture

__all__ = [
    "Alias",
    "AliasMove",
    "AsyncClient",
    "AuditEvent",
    "BaseModel",
    "Blend",
    "Client",
    "Compatibility",
    "Concept",
    "ConceptPair",
    "ConceptSettings",
    "Connection",
    "Consent",
    "CurvePoint",
    "Download",
    "DownloadedPreview",
    "ErasedAdapter",
    "Erasure",
    "Grant",
    "Image",
    "ImageSet",
    "NewPreview",
    "Picture",
    "Preview",
    "PreviewPicture",
    "PreviewSettings",
    "Progress",
    "Queued",
    "QuotaUsage",
    "RenderEvent",
    "RenderRecord",
    "RenderSettings",
    "RenderedConcept",
    "RenderedImage",
    "RendererStatus",
    "ResidentBaseModel",
    "RunError",
    "Similarity",
    "StateChange",
    "TrainingEvent",
    "TrainingProgress",
    "TrainingRun",
    "TrainingSettings",
    "Validation",
    "Version",
    "VersionPreview",
    "from_rpc_error",
]
