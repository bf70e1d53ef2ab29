"""Stubs are fresh, protos well kept, and the wire knows every refusal."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from perfuse import errors
from perfuse.v1 import errors_pb2, registry_pb2

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto"


def compile_protos(*arguments: str, proto: Path = PROTO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(proto / "compile.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the protos, to be spoilt."""
    shutil.copytree(PROTO, tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path / "proto"


def spoil(proto: Path, old: str, new: str) -> None:
    file = proto / "perfuse" / "v1" / "registry.proto"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_stubs_are_fresh(tmp_path: Path) -> None:
    done = compile_protos("stubs", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in (tmp_path / "perfuse" / "v1").iterdir()}
    committed = ROOT / "src" / "perfuse" / "v1"
    assert {path.name for path in committed.glob("*_pb2*")} == set(made)
    for name, text in made.items():
        assert (committed / name).read_text() == text, f"{name} is stale; run: make proto"


def test_the_reference_is_fresh_and_links_lead_somewhere() -> None:
    command = [sys.executable, str(PROTO / "reference.py"), "--check"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    text = (ROOT / "docs/api.md").read_text()
    headings = {line.strip("# ").lower() for line in text.splitlines() if line.startswith("#")}
    links = set(re.findall(r"\]\(#([a-z]+)\)", text))
    assert links
    assert links <= headings


def test_other_languages_get_one_file_with_all_that_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "perfuse.binpb"
    assert compile_protos("descriptors", "--out", str(file)).returncode == 0
    whole = descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for each in whole.file:
        pool.Add(each)
    assert pool.FindServiceByName("perfuse.v1.TrainerService").methods
    assert list(tmp_path.iterdir()) == [file]


def test_the_protos_are_clean_and_the_lint_sees(changed: Path) -> None:
    assert compile_protos("lint").returncode == 0
    spoil(changed, "string display_name = 3", "string DisplayName = 3")
    done = compile_protos("lint", proto=changed)
    assert done.returncode != 0
    assert "DisplayName" in done.stdout


def test_breaking_changes_are_seen(changed: Path) -> None:
    assert compile_protos("breaking", "--against", str(PROTO), proto=changed).returncode == 0
    spoil(changed, "string display_name = 3", "string display_name = 33")
    done = compile_protos("breaking", "--against", str(PROTO), proto=changed)
    assert done.returncode != 0
    assert "display_name" in done.stdout


def test_stubs_carry_the_rules_without_their_package() -> None:
    """No stub imports buf.validate, and yet protovalidate finds every rule in the descriptors."""
    for stub in (ROOT / "src" / "perfuse" / "v1").glob("*_pb2*.py"):
        assert "from buf" not in stub.read_text()
    request = registry_pb2.ListConceptsRequest(parent="tenants/Acme", page_size=-1)
    found = protovalidate.Validator().collect_violations(request)
    assert [violation.proto.rule_id for violation in found] == ["string.pattern", "int32.gte"]


def test_every_branch_of_the_tree_has_its_reason_on_the_wire() -> None:
    prefix = "ERROR_REASON_"
    on_the_wire = {
        name.removeprefix(prefix) for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    in_the_tree = {
        kind("").reason
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PerfuseError)
    }
    assert on_the_wire == in_the_tree | {"UNSPECIFIED"}
