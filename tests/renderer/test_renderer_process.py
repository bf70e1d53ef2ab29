"""Registry and Renderer as processes: a version published in one is rendered by the other."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import ports
import psutil
import pytest
from bases import load_prepared, random_adapter, words_covariance
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from perfuse.adapter import digest
from perfuse.attach import BaseModel
from perfuse.v1 import registry_pb2, renderer_pb2
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub
from perfuse.v1.renderer_pb2_grpc import RendererServiceStub

SECONDS = 200.0


def free_port() -> int:
    return ports.free_ports(1)


def command(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def wait_until_serving(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.05)


@dataclass
class Platform:
    """Two running services.

    Attributes:
        registry, renderer: stubs that carry no credential.
        tokens: tenant → metadata with its token.
        processes: by module.
        renderer_log: what the Renderer said.
    """

    registry: Any
    renderer: Any
    tokens: dict[str, Any]
    processes: dict[str, subprocess.Popen[bytes]]
    renderer_log: Path
    base: BaseModel


@pytest.fixture(scope="module", params=["local", "serve"])
def platform(
    request: pytest.FixtureRequest, tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("platform")
    model = home / "tiny"
    shutil.copytree(tiny_sd15_dir, model)
    words_covariance(BaseModel.load(model)).write(model)
    base = load_prepared(model)
    ports = {"perfuse_registry": free_port(), "perfuse_renderer": free_port()}
    environment = {
        "PERFUSE_REGISTRY_BIND": f"127.0.0.1:{ports['perfuse_registry']}",
        "PERFUSE_REGISTRY_DATABASE_URL": f"sqlite:///{home / 'registry.db'}",
        "PERFUSE_REGISTRY_BLOB_DIRECTORY": str(home / "adapters"),
        "PERFUSE_REGISTRY_TOKEN_FILE": str(home / "tokens"),
        "PERFUSE_RENDERER_BIND": f"127.0.0.1:{ports['perfuse_renderer']}",
        "PERFUSE_RENDERER_BASE_MODELS": f"tiny={model}",
        "PERFUSE_RENDERER_REGISTRY": f"127.0.0.1:{ports['perfuse_registry']}",
        "PERFUSE_RENDERER_TOKEN_FILE": str(home / "tokens"),
        "PERFUSE_RENDERER_ADAPTER_DIRECTORY": str(home / "cache"),
        "PERFUSE_RENDERER_BACKEND": request.param,
        "PERFUSE_RENDERER_OBJECT_STORE_MEGABYTES": "128",
        "OMP_NUM_THREADS": "1",
    }
    assert command("perfuse_registry", "migrate", **environment).returncode == 0
    tokens = {}
    for tenant in ("acme", "globex"):
        roles = ("--role", "admin", "--role", "operator")
        minted = command("perfuse_registry", "token", tenant, *roles, **environment)
        tokens[tenant] = (("authorization", f"Bearer {minted.stdout.strip()}"),)
    processes = {}
    for module in ports:
        log = home / f"{module}.log"
        with log.open("wb") as out:
            processes[module] = subprocess.Popen(
                [sys.executable, "-m", module, "serve"],
                env=os.environ | environment,
                stdout=out,
                stderr=out,
            )
    try:
        for module, port in ports.items():
            wait_until_serving(port, processes[module], home / f"{module}.log")
        channels = {
            module: grpc.insecure_channel(f"127.0.0.1:{port}") for module, port in ports.items()
        }
        yield Platform(
            RegistryServiceStub(channels["perfuse_registry"]),
            RendererServiceStub(channels["perfuse_renderer"]),
            tokens,
            processes,
            home / "perfuse_renderer.log",
            base,
        )
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def publish(platform: Platform, tenant: str, concept: str, *seeds: int) -> None:
    me = {"metadata": platform.tokens[tenant], "timeout": SECONDS}
    base = platform.base
    parent = f"tenants/{tenant}"
    described = registry_pb2.BaseModel(
        fingerprint=base.fingerprint,
        architecture=base.architecture,
        conditioning_width=base.conditioning_width,
        layers=[registry_pb2.Layer(name=x.name, width=x.width) for x in base.layers],
        encoders=[registry_pb2.Encoder(name=x.name, width=x.width) for x in base.encoders],
    )
    try:
        platform.registry.CreateBaseModel(
            registry_pb2.CreateBaseModelRequest(base_model_id="tiny", base_model=described), **me
        )
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS  # noqa: PT017
    platform.registry.CreateConcept(
        registry_pb2.CreateConceptRequest(
            parent=parent,
            concept_id=concept,
            concept=registry_pb2.Concept(super_category="cat"),
        ),
        **me,
    )
    for seed in seeds:
        data = random_adapter(base, seed, "cat").to_bytes()
        platform.registry.CreateVersion(
            registry_pb2.CreateVersionRequest(
                parent=f"{parent}/concepts/{concept}", adapter=data, digest=digest(data)
            ),
            **me,
        )


def draw(platform: Platform, tenant: str, prompt: str, seed: int = 1) -> Any:
    request = renderer_pb2.GenerateImagesRequest(
        settings=renderer_pb2.RenderSettings(
            prompt=prompt, seeds=[seed], steps=3, width=16, height=16, guidance=3.0
        )
    )
    answer = platform.renderer.GenerateImages(
        request, metadata=platform.tokens[tenant], timeout=SECONDS
    )
    (image,) = answer.images
    return image


def pixels(image: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(image.picture)))


def test_what_is_published_is_rendered(platform: Platform) -> None:
    publish(platform, "acme", "tom", 1, 2)
    first, latest = draw(platform, "acme", "a <tom@1>"), draw(platform, "acme", "a <tom>")
    assert first.record.concepts[0].version == "tenants/acme/concepts/tom/versions/1"
    assert latest.record.concepts[0].version == "tenants/acme/concepts/tom/versions/2"
    assert first.record.concepts[0].digest == random_adapter(platform.base, 1, "cat").digest
    assert (pixels(first) != pixels(latest)).any()
    assert (pixels(draw(platform, "acme", "a <tom@1>")) == pixels(first)).all()


def test_a_tenant_sees_its_own_concepts_alone(platform: Platform) -> None:
    publish(platform, "acme", "rex", 3)
    publish(platform, "globex", "rex", 4)
    mine, theirs = draw(platform, "acme", "a <rex>"), draw(platform, "globex", "a <rex>")
    assert mine.record.concepts[0].digest != theirs.record.concepts[0].digest
    with pytest.raises(grpc.RpcError) as refused:
        draw(platform, "acme", "a <globex/rex>")
    with pytest.raises(grpc.RpcError) as missing:
        draw(platform, "acme", "a <globex/nobody>")
    assert refused.value.code() == missing.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details().replace("rex", "") == missing.value.details().replace(
        "nobody", ""
    )


def test_without_the_registry_what_is_cached_renders_on(platform: Platform) -> None:
    """The last test of this file: the services end here, the Renderer in good order."""
    publish(platform, "acme", "seat", 5)
    before = draw(platform, "acme", "on a <seat>")
    platform.processes["perfuse_registry"].kill()
    platform.processes["perfuse_registry"].wait()
    time.sleep(5.1)  # What was resolved is no longer fresh.
    assert (pixels(draw(platform, "acme", "on a <seat>")) == pixels(before)).all()
    with pytest.raises(grpc.RpcError) as refused:
        draw(platform, "acme", "a <unseen>")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    renderer = platform.processes["perfuse_renderer"]
    own = psutil.Process(renderer.pid).children(recursive=True)
    request = renderer_pb2.RenderRequest(
        settings=renderer_pb2.RenderSettings(
            prompt="on a <seat>", seeds=[1, 2], steps=100, width=16, height=16
        )
    )
    images = 0
    for event in platform.renderer.Render(request, metadata=platform.tokens["acme"]):
        if (event.progress.image_index, event.progress.step) == (0, 1):
            renderer.send_signal(signal.SIGTERM)
        images += event.HasField("image")
    assert images == 2
    assert renderer.wait(SECONDS) == 0
    assert psutil.wait_procs(own, timeout=10)[1] == []
    said = platform.renderer_log.read_text()
    assert "Traceback" not in said
    assert "on a" not in said
    for ((_, token),) in platform.tokens.values():
        assert token.removeprefix("Bearer ") not in said


def test_a_kill_leaves_no_process_of_ray_behind() -> None:
    """But two agents of Ray's, which look for their parent for about a minute, then end."""
    opened = """
import time
from perfuse_renderer.cluster import Cluster
from perfuse_renderer.settings import RendererSettings
cluster = Cluster(RendererSettings(backend="serve", object_store_megabytes=128))
print("open", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", opened], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        own = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "Agent" not in child.name()
        ]
        assert len(own) > 3
    finally:
        process.kill()
        process.communicate()
    assert psutil.wait_procs(own, timeout=20)[1] == []


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "there is nothing to render on"),
        ({"BASE_MODELS": "tiny"}, "write id=directory"),
        ({"BASE_MODELS": "tiny=/nowhere", "REGISTRY": "registry:7071"}, "in plain text"),
        ({"BASE_MODELS": "tiny=/nowhere"}, "TOKEN_FILE is not set"),
        ({"BACKEND": "serve", "RAY_ADDRESS": "ray://head:10001"}, "nothing can be streamed"),
    ],
)
def test_bad_settings_end_in_one_sentence(environment: dict[str, str], sentence: str) -> None:
    given = {f"PERFUSE_RENDERER_{key}": value for key, value in environment.items()}
    done = command("perfuse_renderer", "serve", **given)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
