"""A platform of real processes in which two tenants live, one of whom has secrets everywhere.

The owner, `OWNER`, plants `MARK` in every text that a request of its own can hold, and has what
`security.requests.about` names: concept tom with version 1 and alias prod, image set tom, training
run first. The stranger has nothing.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import platform_up
import ports
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from registry import samples
from trainer.served import parts
from trainer.test_image_sets import PICTURE

from perfuse.serving import mint
from perfuse.v1 import erasure_pb2, registry_pb2, renderer_pb2, trainer_pb2
from security.requests import METHODS

OWNER, STRANGER, NOBODY = "acme", "globex", "nobody"
MARK = "Qzx-Mark"
"""In every text of the owner's that is none of a resource's name."""

SECONDS = 60.0
REGISTRY, TRAINER, RENDERER = (
    f"perfuse.v1.{name}Service" for name in ("Registry", "Trainer", "Renderer")
)


@dataclass
class Answer:
    """How a call ended.

    Attributes:
        code: name of the status.
        messages: what was answered.
        words: of the refusal, with all its details.
        metadata: initial and trailing, without the request's id, which is drawn.
    """

    code: str
    messages: list[Message] = field(default_factory=list)
    words: str = ""
    metadata: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def everything(self) -> bytes:
        """All bytes that the caller got."""
        sent = [message.SerializeToString(deterministic=True) for message in self.messages]
        beside = [key.encode() + b" " + value for key, value in self.metadata]
        return b"\n".join([self.code.encode(), self.words.encode(), *sent, *beside])


@dataclass
class Place:
    """The platform.

    Attributes:
        home: its folder.
        connection: of the platform's own owner, with every right.
        channels: to each service, by its full name.
        metrics: addresses of the pages of measures.
        tokens: tenant → a token with every role of a tenant's; `operator` → an operator's.
        prompt: with which the owner rendered.
        pictures: bytes of the owner's pictures, sent and rendered.
    """

    home: Path
    connection: Any
    channels: dict[str, Any]
    metrics: list[str]
    tokens: dict[str, str]
    prompt: str = ""
    pictures: list[bytes] = field(default_factory=list)

    def call(self, rpc: str, request: Any, who: str, *, seconds: float = SECONDS) -> Answer:
        """Call as a tenant, or as `operator`; `request` is a message, its bytes, or a list of them.

        A stream of answers is read to its end or to the deadline.
        """
        method, channel = METHODS[rpc], self.channels[rpc.split("/")[0]]
        kinds = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
        }
        send = kinds[method.client_streaming, method.server_streaming](
            f"/{rpc}",
            request_serializer=_bytes_of,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        if method.client_streaming:
            request = iter(request if isinstance(request, list) else [request])
        metadata = (("authorization", f"Bearer {self.tokens[who]}"),)
        answer = Answer("OK")
        try:
            if method.server_streaming:
                call = send(request, metadata=metadata, timeout=seconds)
                answer.messages.extend(call)
            else:
                message, call = send.with_call(request, metadata=metadata, timeout=seconds)
                answer.messages.append(message)
        except grpc.RpcError as error:
            call = error
            answer.code, answer.words = call.code().name, call.details()
        for pairs in (call.initial_metadata(), call.trailing_metadata()):
            for key, value in pairs or ():
                if key != "x-request-id":
                    raw = value if isinstance(value, bytes) else value.encode()
                    answer.metadata.append((key, raw))
        return answer

    def sizes(self) -> dict[str, int]:
        """How long each log is."""
        return {path.name: path.stat().st_size for path in (self.home / "logs").iterdir()}

    def logs(self, since: dict[str, int] | None = None) -> str:
        """All that was logged, or what was logged since the logs were so long."""
        return "".join(
            path.read_bytes()[(since or {}).get(path.name, 0) :].decode(errors="replace")
            for path in sorted((self.home / "logs").iterdir())
        )

    def measures(self) -> str:
        """Every page of measures."""
        pages = []
        for address in self.metrics:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as page:
                pages.append(page.read().decode())
        return "".join(pages)


@contextmanager
def place(home: Path) -> Iterator[Place]:
    """A platform with two tenants, before anything is planted."""
    first = ports.free_ports(3)
    metrics = {
        f"PERFUSE_{service}_METRICS_ADDRESS": f"127.0.0.1:{first + index}"
        for index, service in enumerate(("REGISTRY", "TRAINER", "RENDERER"))
    }
    with platform_up.running(home, environment=metrics) as platform, ExitStack() as stack:
        channels = {}
        for service in (REGISTRY, TRAINER, RENDERER):
            name = service.removeprefix("perfuse.v1.").removesuffix("Service").lower()
            options = [("grpc.max_receive_message_length", 64 << 20)]
            channel = grpc.insecure_channel(getattr(platform.connection, name), options)
            channels[service] = stack.enter_context(channel)
        tokens = {
            tenant: mint(home / "tokens", tenant, f"{tenant}-person", ["admin"])
            for tenant in (OWNER, STRANGER)
        }
        tokens["operator"] = mint(home / "tokens", "operations", "olga", ["operator"])
        tokens["everything"] = mint(home / "tokens", "fuzzer", "fay", ["admin", "operator"])
        yield Place(home, platform.connection, channels, list(metrics.values()), tokens)


def plant(where: Place) -> None:
    """Give the owner all that it has."""
    name = f"tenants/{OWNER}"
    done = _Done(where)
    labels = {"note": MARK}
    base = registry_pb2.CreateBaseModelRequest(
        base_model_id="small", base_model=samples.base_model()
    )
    done("operator", "Registry/CreateBaseModel", base)
    concept = registry_pb2.Concept(
        super_category="cat", display_name=MARK, description=MARK, labels=labels
    )
    for concept_id in ("tom", "tabby"):
        create = registry_pb2.CreateConceptRequest(
            parent=name, concept_id=concept_id, concept=concept
        )
        done(OWNER, "Registry/CreateConcept", create)
    gone = registry_pb2.CreateConceptRequest(parent=name, concept_id="gone", concept=concept)
    made = done(OWNER, "Registry/CreateConcept", gone).messages[0]
    erase = erasure_pb2.EraseConceptRequest(name=made.name, etag=made.etag)
    done(OWNER, "Registry/EraseConcept", erase)
    version = registry_pb2.Version(description=MARK, labels=labels)
    adapter = samples.adapter(3, training={"mask": MARK})
    where.pictures.append(adapter[-64:])
    upload = samples.upload(f"{name}/concepts/tom", adapter, version=version)
    done(OWNER, "Registry/CreateVersion", upload)
    alias = registry_pb2.Alias(version=f"{name}/concepts/tom/versions/1")
    done(
        OWNER,
        "Registry/CreateAlias",
        registry_pb2.CreateAliasRequest(
            parent=f"{name}/concepts/tom", alias_id="prod", alias=alias
        ),
    )
    images = trainer_pb2.CreateImageSetRequest(parent=name, image_set_id="tom")
    images.image_set.keep = True
    done(OWNER, "Trainer/CreateImageSet", images)
    sent = list(parts(f"{name}/imageSets/tom", (f"{MARK}.png", PICTURE)))
    done(OWNER, "Trainer/UploadImages", sent)
    where.pictures.append(PICTURE[-64:])
    run = trainer_pb2.TrainingRun(
        concept=f"{name}/concepts/tom",
        image_set=f"{name}/imageSets/tom",
        description=MARK,
        labels=labels,
        settings=trainer_pb2.TrainingSettings(steps=1, batch=1, validate_every=1),
    )
    run.settings.previews.prompts.append(f"a photo of {MARK} <>")
    run.settings.previews.steps = 1
    queue = trainer_pb2.CreateTrainingRunRequest(
        parent=name, training_run_id="first", training_run=run
    )
    done(OWNER, "Trainer/CreateTrainingRun", queue)
    watch = trainer_pb2.WatchTrainingRunRequest(name=f"{name}/trainingRuns/first")
    events = done(OWNER, "Trainer/WatchTrainingRun", watch).messages
    assert events[-1].state_change.state == trainer_pb2.TRAINING_RUN_STATE_SUCCEEDED, events[-1]
    where.pictures += [each.preview.picture[-64:] for each in events if each.preview.picture]
    where.prompt = f"a photo of {MARK} on the beach"
    settings = renderer_pb2.RenderSettings(prompt=where.prompt, steps=1, seeds=[1])
    drawn = done(
        OWNER, "Renderer/GenerateImages", renderer_pb2.GenerateImagesRequest(settings=settings)
    )
    where.pictures += [image.picture[-64:] for image in drawn.messages[0].images]


def furnish(where: Place) -> None:
    """Give the one who sends generated requests what these name."""
    name, done = "tenants/fuzzer", _Done(where)
    create = registry_pb2.CreateConceptRequest(
        parent=name, concept_id="tom", concept=registry_pb2.Concept(super_category="cat")
    )
    done("everything", "Registry/CreateConcept", create)
    for seed in (1, 2):
        upload = samples.upload(f"{name}/concepts/tom", samples.adapter(seed))
        done("everything", "Registry/CreateVersion", upload)
    alias = registry_pb2.Alias(version=f"{name}/concepts/tom/versions/1")
    done(
        "everything",
        "Registry/CreateAlias",
        registry_pb2.CreateAliasRequest(
            parent=f"{name}/concepts/tom", alias_id="prod", alias=alias
        ),
    )
    images = trainer_pb2.CreateImageSetRequest(parent=name, image_set_id="tom")
    done("everything", "Trainer/CreateImageSet", images)


class _Done:
    """Calls that must succeed."""

    def __init__(self, where: Place) -> None:
        self._where = where

    def __call__(self, who: str, rpc: str, request: Any) -> Answer:
        service, _, method = rpc.partition("/")
        answer = self._where.call(
            f"perfuse.v1.{service}Service/{method}", request, who, seconds=120
        )
        assert answer.code == "OK", (rpc, answer.words)
        return answer


def _bytes_of(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def credentials(where: Place) -> set[str]:
    """Every token that is in force, those of the platform's own included."""
    kept = json.loads((where.home / "credentials.json").read_text())
    return {*where.tokens.values(), *kept.values(), where.connection.token}
