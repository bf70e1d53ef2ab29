"""Compiles, lints and compares the protos: `compile.py stubs|descriptors|lint|breaking`.

Third-party protos come from pip packages: googleapis-common-protos ships its sources, and
protovalidate carries `buf/validate/validate.proto` as a descriptor. No package ships Python stubs
of the latter that google.protobuf could import, so our stubs keep its options without importing
it: they are unknown fields to google.protobuf, and the same bytes as ever to protovalidate.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import google.api
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from protovalidate import ViolationPb

HERE = Path(__file__).parent
STUBS = HERE.parent / "src"
RULES = "buf/validate/validate.proto"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python proto/compile.py", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stubs = commands.add_parser("stubs", help="write the Python stubs")
    stubs.add_argument("--out", type=Path, default=STUBS, help="folder that `perfuse/v1` is in")
    one_file = commands.add_parser("descriptors", help="write one file for other languages")
    one_file.add_argument("--out", type=Path, default=Path("perfuse.binpb"))
    commands.add_parser("lint", help="judge the protos by buf.yaml")
    breaking = commands.add_parser("breaking", help="compare the protos with older ones")
    breaking.add_argument("--against", default="HEAD", help="a git revision, or a folder of protos")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.command == "stubs":
            write_stubs(options.out, work)
        elif options.command == "descriptors":
            image(HERE, options.out)
            options.out.with_suffix(".rules").unlink()
        elif options.command == "lint":
            _buf("lint", str(image(HERE, work / "now.binpb")))
        else:
            older = image(_older(options.against, work), work / "older.binpb")
            _buf("breaking", str(image(HERE, work / "now.binpb")), "--against", str(older))


def write_stubs(out: Path, work: Path) -> None:
    """Generate `perfuse/v1/*_pb2*.py*` under `out`."""
    whole = descriptor_pb2.FileDescriptorSet.FromString(image(HERE, work / "i.binpb").read_bytes())
    for file in list(whole.file):
        if file.name == RULES:
            whole.file.remove(file)
        elif RULES in file.dependency:
            file.dependency.remove(RULES)
    bare = work / "bare.binpb"
    bare.write_bytes(whole.SerializeToString())
    out.mkdir(parents=True, exist_ok=True)
    targets = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    _protoc(f"--descriptor_set_in={bare}", *targets, *_names(HERE))
    for name in _names(HERE):
        stub = out / name.replace(".proto", "_pb2_grpc.py")
        if "class " not in stub.read_text():
            stub.unlink()  # A file without services.


def image(root: Path, target: Path) -> Path:
    """All protos under `root` with everything they import, as one FileDescriptorSet."""
    rules = target.with_suffix(".rules")
    rules.write_bytes(_validation_rules().SerializeToString())
    _protoc(
        f"-I{root}",
        f"-I{Path(next(iter(google.api.__path__))).parent.parent}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--descriptor_set_in={rules}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target}",
        *_names(root),
    )
    return target


def _validation_rules() -> descriptor_pb2.FileDescriptorSet:
    """protovalidate's own proto, with what it imports."""
    found: dict[str, bytes] = {}

    def visit(file: object) -> None:
        proto = file.proto  # type: ignore[attr-defined]
        if proto.name not in found:
            for imported in file.dependencies:  # type: ignore[attr-defined]
                visit(imported)
            found[proto.name] = proto.to_binary()

    visit(ViolationPb.desc().file)
    parsed = (descriptor_pb2.FileDescriptorProto.FromString(data) for data in found.values())
    return descriptor_pb2.FileDescriptorSet(file=parsed)


def _older(against: str, work: Path) -> Path:
    if Path(against).is_dir():
        return Path(against)
    archive = subprocess.run(
        ["git", "archive", against, "proto"], cwd=HERE.parent, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", work], input=archive.stdout, check=True)
    return work / "proto"


def _names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("perfuse/v1/*.proto"))


def _protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]):
        sys.exit("protoc refused the protos; its messages stand above.")


def _buf(command: str, *arguments: str) -> None:
    buf = Path(sys.executable).with_name("buf")
    config = ["--config", str(HERE.parent / "buf.yaml"), "--path", "perfuse/v1"]
    done = subprocess.run([buf, command, *arguments, *config], cwd=HERE, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
