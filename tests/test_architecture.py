"""Who may import whom, read off the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "diffusers", "transformers", "numpy", "safetensors", "PIL", "ray"}
# Libraries that have a room of their own as well.
ROOMED = {
    *HEAVY,
    "alembic",
    "certifi",
    "cryptography",
    "google",
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_status",
    "jwt",
    "lark",
    "minio",
    "opentelemetry",
    "prometheus_client",
    "protovalidate",
    "psycopg",
    "pydantic",
    "pydantic_settings",
    "sqlalchemy",
    "sqlmodel",
    "structlog",
    "urllib3",
}
WIRE = {"google", "grpc", "grpc_status", "perfuse.v1"}
ENGINE = HEAVY - {"ray"}
PICTURES = {"perfuse_trainer.pictures"}
STORAGE = {
    *("perfuse.adapter", "perfuse.errors", "perfuse.names", "perfuse.quotas", "perfuse.storage"),
}
RULES = {*STORAGE, "perfuse_registry"}

# What a package or module may import of ours and of the heavy libraries; the longest match rules.
ALLOWED: dict[str, set[str]] = {
    "perfuse": set(),
    "perfuse.errors": set(),
    "perfuse.key_lock": set(),
    "perfuse.method": {"perfuse.key_lock", "perfuse.method", "perfuse.errors", "torch"},
    "perfuse.adapter": {"perfuse.adapter", "perfuse.errors"},
    "perfuse.adapter.tensors": {"perfuse.adapter", "perfuse.errors", "torch", "safetensors"},
    "perfuse.attach": {
        "perfuse.attach",
        "perfuse.adapter",
        "perfuse.method",
        "perfuse.errors",
        "torch",
        "diffusers",
        "transformers",
        "safetensors",
    },
    # `base prepare` computes on a local directory, so the command reaches attach, inside functions.
    "perfuse.cli": {
        *("perfuse.__version__", "perfuse.adapter.header", "perfuse.attach", "perfuse.cli"),
        *("perfuse.client", "perfuse.errors", "perfuse.names", "PIL"),
    },
    "perfuse.names": {"perfuse.errors"},
    "perfuse.quotas": {"perfuse.errors", "perfuse.names"},
    "perfuse.v1": {"perfuse.v1", "google", "grpc"},
    "perfuse.client": {
        "perfuse.__version__",
        "perfuse.adapter.header",
        "perfuse.client",
        "perfuse.errors",
        "perfuse.names",
        *WIRE,
        "grpc_health",
    },
    "perfuse.serving": {
        "perfuse.serving",
        "perfuse.errors",
        "perfuse.names",
        *WIRE,
        "grpc_health",
        "grpc_reflection",
        "jwt",
        "cryptography",
        "opentelemetry",
        "prometheus_client",
        "protovalidate",
        "pydantic",
        "pydantic_settings",
        "structlog",
    },
    "perfuse.storage": {*STORAGE, "sqlalchemy"},
    "perfuse.storage.blobs_s3": {*STORAGE, "certifi", "minio", "urllib3"},
    "perfuse.storage.columns": {*STORAGE, "sqlalchemy", "sqlmodel"},
    "perfuse.storage.filter_grammar": {*STORAGE, "lark"},
    "perfuse.storage.prepared_postgresql": {*STORAGE, "psycopg", "sqlalchemy"},
    "perfuse.storage.requests": {*STORAGE, "pydantic", "sqlalchemy"},
    "perfuse.storage.schema": {*STORAGE, "alembic", "sqlalchemy"},
    "perfuse.storage.settings": {*STORAGE, "perfuse.serving", "pydantic"},
    "perfuse.serving.cluster": {"perfuse.errors", "ray"},
    # Rules know SQL and no gRPC; only the edge of the service knows the wire.
    "perfuse_registry": {*RULES, "sqlalchemy"},
    "perfuse_registry.__main__": {*RULES, "perfuse.serving", "perfuse.v1"},
    "perfuse_registry.consent_calls": {*RULES, "perfuse.serving", "perfuse.v1"},
    "perfuse_registry.erasure_calls": {*RULES, "perfuse.serving", "perfuse.v1"},
    "perfuse_registry.erasure_messages": {*RULES, "perfuse.v1"},
    "perfuse_registry.erasure_tables": {*RULES, "sqlalchemy", "sqlmodel"},
    "perfuse_registry.installation_calls": {
        *(*RULES, "google", "perfuse.serving", "perfuse.v1"),
    },
    "perfuse_registry.measures": {
        *(*RULES, "perfuse.serving.metrics", "prometheus_client", "sqlalchemy"),
    },
    "perfuse_registry.messages": {*RULES, "google", "perfuse.v1"},
    "perfuse_registry.migrations": {*RULES, "alembic", "sqlalchemy"},
    "perfuse_registry.servicer": {*RULES, "google", "perfuse.serving", "perfuse.v1"},
    "perfuse_registry.sharing_calls": {*RULES, "google", "perfuse.serving", "perfuse.v1"},
    "perfuse_registry.settings": {*RULES, "perfuse.serving", "pydantic", "pydantic_settings"},
    "perfuse_registry.table_base": {*RULES, "sqlalchemy", "sqlmodel"},
    "perfuse_registry.tables": {*RULES, "sqlalchemy", "sqlmodel"},
    "perfuse_registry.version_messages": {*RULES, "perfuse.v1"},
    "perfuse_renderer": {
        "perfuse.adapter",
        "perfuse.client",
        "perfuse.errors",
        "perfuse.names",
        "perfuse.quotas",
        "perfuse_renderer",
    },
    "perfuse_renderer.__main__": {
        *("perfuse.client", "perfuse.errors", "perfuse.quotas", "perfuse.serving", "perfuse.v1"),
        "perfuse_renderer",
    },
    "perfuse_renderer.cluster": {
        *("perfuse.errors", "perfuse.serving", "perfuse_renderer", "ray"),
    },
    "perfuse_renderer.journey": {
        *("perfuse.attach", "perfuse.errors", "perfuse_renderer", "ray"),
    },
    "perfuse_renderer.measures": {"perfuse_renderer", "prometheus_client"},
    "perfuse_renderer.plan_store": {"perfuse.attach", "perfuse_renderer", "ray", "torch"},
    "perfuse_renderer.replica": {"perfuse.attach", "perfuse.errors", "perfuse_renderer", "ray"},
    "perfuse_renderer.residence": {
        *("perfuse.attach", "perfuse.errors", "perfuse_renderer", "torch"),
    },
    "perfuse_renderer.serve_backend": {"perfuse.errors", "perfuse_renderer", "ray"},
    "perfuse_renderer.studios": {"perfuse.attach", "perfuse.errors", "perfuse_renderer"},
    "perfuse_renderer.traffic": {
        *("perfuse.attach", "perfuse.errors", "perfuse_renderer", "torch"),
    },
    "perfuse_renderer.settings": {
        *("perfuse.errors", "perfuse.names", "perfuse.serving"),
        *("grpc", "pydantic", "pydantic_settings"),
    },
    "perfuse_renderer.messages": {
        *("perfuse.errors", "perfuse.method", "perfuse.v1", "perfuse_renderer", "google"),
    },
    "perfuse_renderer.forgetting": {
        *("perfuse.client", "perfuse.errors", "perfuse_renderer", "structlog"),
    },
    "perfuse_renderer.pictures": {"PIL", "torch"},
    "perfuse_renderer.planning": {"perfuse", "perfuse_renderer"},
    "perfuse_renderer.servicer": {
        *("perfuse.errors", "perfuse.quotas", "perfuse.serving", "perfuse.v1"),
        *("perfuse_renderer", "google"),
    },
    "perfuse_renderer.studio": {
        *("perfuse.attach", "perfuse.errors", "perfuse.method", "perfuse.serving.tracing"),
        "perfuse_renderer",
    },
    "perfuse_renderer.engine": {
        "perfuse.attach",
        "perfuse.errors",
        "perfuse_renderer.engine",
        "diffusers",
        "torch",
    },
    # The training itself, and pictures, know of no service.
    "perfuse_trainer.learning": {"perfuse", "perfuse_trainer.learning", *PICTURES, *ENGINE},
    "perfuse_trainer.pictures": {"perfuse.errors", "perfuse_trainer.pictures", "torch", "PIL"},
    # Rules know SQL and no gRPC; only the edge of the service knows the wire.
    "perfuse_trainer": {*STORAGE, "perfuse_trainer"},
    "perfuse_trainer.__main__": {*STORAGE, "perfuse.serving", "perfuse_trainer"},
    "perfuse_trainer.learn_command": {"perfuse", "perfuse_trainer"},
    "perfuse_trainer.migrations": {
        *("perfuse.storage.append_only", "perfuse_trainer", "alembic", "sqlalchemy"),
    },
    "perfuse_trainer.runners": {"perfuse.errors", "perfuse_trainer.runners", "structlog"},
    "perfuse_trainer.runners.ray_actors": {
        *("perfuse.serving", "perfuse_trainer.runners", "perfuse_trainer.working", "ray"),
        "structlog",
    },
    "perfuse_trainer.foreman": {"perfuse.errors", "perfuse_trainer", "structlog"},
    "perfuse_trainer.measures": {
        *(*STORAGE, "perfuse.serving.metrics", "perfuse_trainer"),
        *("prometheus_client", "sqlalchemy"),
    },
    "perfuse_trainer.runs": {*STORAGE, "perfuse.key_lock", "perfuse_trainer", "sqlalchemy"},
    "perfuse_trainer.runs.attachments": {
        *(*STORAGE, "perfuse.client.attachments", "perfuse_trainer", "sqlalchemy"),
    },
    "perfuse_trainer.runs.consent": {
        *(*STORAGE, "perfuse.client", "perfuse_trainer", "sqlalchemy", "structlog"),
    },
    "perfuse_trainer.runs.erasing": {*STORAGE, "perfuse_trainer", "sqlalchemy", "structlog"},
    "perfuse_trainer.runs.publisher": {
        *(*STORAGE, "perfuse.client", "perfuse.serving.tracing", "perfuse_trainer"),
        *("sqlalchemy", "structlog"),
    },
    "perfuse_trainer.service_settings": {
        *(*STORAGE, "perfuse.serving", "grpc", "pydantic", "pydantic_settings"),
    },
    "perfuse_trainer.serving": {"perfuse", "perfuse_trainer"},
    "perfuse_trainer.sets": {*STORAGE, "perfuse_trainer", "PIL", "sqlalchemy"},
    "perfuse_trainer.sweeping": {*STORAGE, "perfuse_trainer", "sqlalchemy"},
    "perfuse_trainer.tables": {*STORAGE, "sqlalchemy", "sqlmodel"},
    "perfuse_trainer.wire": {
        *(*STORAGE, "perfuse.client", "perfuse.key_lock", "perfuse.serving", "perfuse.v1"),
        *("perfuse_trainer", "google"),
    },
    "perfuse_trainer.working": {"perfuse", "perfuse_trainer", *ENGINE},
    "perfuse_toybox": {"perfuse", "perfuse_toybox", "perfuse_trainer", *ENGINE},
}


def modules() -> Iterator[tuple[str, Path]]:
    for home in ("src", "services/registry", "services/renderer", "services/trainer", "toybox"):
        for path in sorted((ROOT / home).rglob("*.py")):
            parts = path.relative_to(ROOT / home).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def covered(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value)[-40:])
def test_imports_only_what_its_room_allows(module: str, path: Path) -> None:
    rule = max((key for key in ALLOWED if covered(module, {key})), key=len)
    allowed = ALLOWED[rule]
    ours_or_roomed = {
        "perfuse",
        "perfuse_registry",
        "perfuse_renderer",
        "perfuse_trainer",
        "perfuse_toybox",
        *ROOMED,
    }
    for name in imports(path):
        if not covered(name, ours_or_roomed):
            continue
        assert covered(name, allowed) or any(entry.startswith(name + ".") for entry in allowed), (
            f"{module} imports {name}; {rule} may import {sorted(allowed)}"
        )


def test_every_rule_has_a_room() -> None:
    names = [module for module, _ in modules()]
    for rule in ALLOWED:
        assert any(covered(name, {rule}) for name in names), f"no module is left under {rule}"


@pytest.mark.parametrize(
    "statement",
    [
        "import perfuse",
        "import perfuse.errors",
        "import perfuse.cli",
        "import perfuse.adapter.header",
        "import perfuse.client",
        "import perfuse.serving.run",
        "import perfuse_registry.__main__, perfuse_registry.servicer",
    ],
)
def test_importing_loads_no_torch(statement: str) -> None:
    probe = f"import sys; {statement}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_the_trainer_s_server_loads_no_torch() -> None:
    """Its workers do, which are processes of their own."""
    probe = "import sys, perfuse_trainer.__main__, perfuse_trainer.serving; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert (HEAVY - {"PIL"}).isdisjoint(ran.stdout.split())


def test_modules_stay_small_and_have_nouns_for_names() -> None:
    for module, path in modules():
        if "_pb2" in module:
            continue
        lines = len(path.read_text().splitlines())
        assert lines <= 340, f"{module} has {lines} lines; two nouns would live better apart"
        assert not {"utils", "helpers", "common", "misc", "manager"} & set(module.split("."))
