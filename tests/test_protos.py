"""The committed stubs are those of the protos, and the wire knows every refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perfuse import errors
from perfuse.v1 import errors_pb2

ROOT = Path(__file__).parent.parent


def test_stubs_are_fresh(tmp_path: Path) -> None:
    protos = sorted((ROOT / "proto" / "perfuse" / "v1").glob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            *map(str, protos),
        ],
        check=True,
        timeout=60,
    )
    made = {path.name: path.read_text() for path in (tmp_path / "perfuse" / "v1").iterdir()}
    committed = ROOT / "src" / "perfuse" / "v1"
    assert {path.name for path in committed.glob("*_pb2*")} == set(made)
    for name, text in made.items():
        assert (committed / name).read_text() == text, f"{name} is stale; run: make proto"


def test_every_branch_of_the_tree_has_its_reason_on_the_wire() -> None:
    prefix = "ERROR_REASON_"
    on_the_wire = {
        name.removeprefix(prefix) for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    in_the_tree = {
        kind("").reason
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PerfuseError)
    } - {"PERFUSE_ERROR"}
    assert on_the_wire == in_the_tree | {"UNSPECIFIED"}
