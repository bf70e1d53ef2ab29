"""Measures as the modules that hold them declare them, and as the page tells of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grpc

import perfuse_registry.measures
import perfuse_renderer.measures
import perfuse_trainer.measures
from perfuse.quotas import QUOTAS
from perfuse.serving import metrics
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "measures.md"
MODULES = (metrics, perfuse_registry.measures, perfuse_trainer.measures, perfuse_renderer.measures)
LABELS = {
    "base_model": {"toybox"},
    "cache": {"plans", "texts", "concepts", "adapters", "adapter_files"},
    "code": {code.name for code in grpc.StatusCode},
    "quota": set(QUOTAS),
    "operation": {"put", "get", "stat", "delete", "check"},
    "state": {"QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED"},
    "work": {"read", "transact", "hasten"},
    "outcome": {
        *("done", "failed", "published", "postponed", "refused"),
        *("finished", "given_up", "hit", "miss"),
    },
    "method": {
        f"{service.full_name}/{method.name}"
        for file in (registry_pb2, trainer_pb2, renderer_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    },
}
"""Every label, and all the values that it may ever have; `base_model` has the operator's ids."""


def declared(*modules: ModuleType) -> set[str]:
    """The names of some modules, by default of all that have any."""
    return {
        value
        for module in modules or MODULES
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and value.startswith("perfuse_")
    }


def documented() -> Iterator[tuple[str, list[str]]]:
    """Name and labels of each row of the page's tables."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `perfuse_"):
            yield cells[0].strip("`"), re.findall(r"`(\w+)`", cells[1])
