"""What `perfuse doctor` looks at on this machine: Python, packages, device, folder, settings."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from perfuse import __version__
from perfuse.cli.finding import Finding, note, ok, problem
from perfuse.client.connection import config_file, home

__all__ = ["check_configuration", "check_device", "check_home", "check_packages", "check_python"]

_EXTRAS = {
    "engine": "`perfuse base` and training without services",
    "registry": "running a Registry",
    "trainer": "running a Trainer",
    "renderer": "running a Renderer",
}
_TORCH_SECONDS = 60.0
_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps([torch.__version__, torch.cuda.get_device_name(0) if cuda else ""]))
"""
_LEAST_FREE = 1 << 30
_VARIABLES = ("REGISTRY", "TRAINER", "RENDERER", "TENANT", "TOKEN", "CA")


def check_python() -> Iterator[Finding]:
    """Its version, against what this release was made for."""
    here = sys.version_info[:2]
    said = f"{sys.version.split()[0]}, {sys.executable}"
    wanted = metadata.metadata("perfuse")["Requires-Python"] or ""
    for operator, major, minor in re.findall(r"(>=|<)(\d+)\.(\d+)", wanted):
        bound = (int(major), int(minor))
        if (here < bound) if operator == ">=" else (here >= bound):
            yield problem(
                "Python", f"{said}: this release needs {wanted}", "make an environment with one"
            )
            return
    yield ok("Python", said)


def check_packages() -> Iterator[Finding]:
    """That what is required is there, and which extras are not."""
    needed: dict[str, list[str]] = {"": []}
    for requirement in metadata.requires("perfuse") or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        of = re.search(r"extra == ['\"]([^'\"]+)", requirement)
        if name is not None:
            needed.setdefault(of[1] if of else "", []).append(name[0])
    missing = {extra: [n for n in names if not _installed(n)] for extra, names in needed.items()}
    if missing[""]:
        yield problem(
            "packages",
            f"perfuse {__version__} lacks {', '.join(missing[''])}",
            "pip install --force-reinstall perfuse",
        )
    else:
        yield ok("packages", f"perfuse {__version__} has all that it needs to call services")
    lacking = [extra for extra in _EXTRAS if missing.get(extra)]
    for extra in lacking:
        # Who only calls services elsewhere needs none of them.
        yield note(
            f"extra {extra}",
            f"{', '.join(missing[extra])} not installed, which {_EXTRAS[extra]} needs",
            f"pip install 'perfuse[{extra}]'",
        )
    if not lacking:
        yield ok("extras", f"{', '.join(_EXTRAS)} are complete")


def check_device() -> Iterator[Finding]:
    """Torch, and what it computes on; asked in a process of its own, for it may well hang."""
    if importlib.util.find_spec("torch") is None:
        yield note("torch", "not installed; only services and `perfuse base` need it")
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TORCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield problem(
            "torch",
            f"does not load within {_TORCH_SECONDS:g} seconds",
            "see whether the GPU's driver answers (nvidia-smi), or the machine is overloaded",
        )
        return
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["it says nothing"])[-1]
        yield problem("torch", f"does not load: {last}", "pip install --force-reinstall torch")
        return
    version, device = json.loads(asked.stdout.strip().splitlines()[-1])
    yield ok("torch", f"{version}, {device or f'CPU with {os.cpu_count()} cores'}")


def check_home() -> Iterator[Finding]:
    """That `perfuse up` could keep a platform here."""
    folder = home()
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield problem(
            "folder",
            f"{folder} cannot be written ({error.strerror})",
            "make it writable, or choose another with PERFUSE_HOME",
        )
        return
    said = f"{folder} can be written, {free / 2**30:.1f} GiB are free"
    if free < _LEAST_FREE:
        yield problem(
            "folder", said, "make room, 1 GiB at least, or choose another with PERFUSE_HOME"
        )
    else:
        yield ok("folder", said)


def check_configuration(given: Path | None) -> Iterator[Finding]:
    """Which file says where the services are; whether it can be read is found on connecting."""
    path = given or config_file()
    variables = [f"PERFUSE_{name}" for name in _VARIABLES if os.environ.get(f"PERFUSE_{name}")]
    beside = f", and {', '.join(variables)} in the environment" if variables else ""
    if path is not None:
        if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o044:
            yield note(
                "configuration",
                f"{path}{beside}; others on this machine may read it",
                f"chmod 600 {path}",
            )
        else:
            yield ok("configuration", f"{path}{beside}")
    elif variables:
        yield ok("configuration", f"{', '.join(variables)} in the environment, and no file")
    else:
        yield note(
            "configuration",
            f"no file and no variable says where the services are: {home() / 'config.toml'} is "
            "not there, nor what `perfuse up` leaves",
            "start a platform with `perfuse up`, or write that file",
        )


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _nearest(folder: Path) -> Path:
    """The folder, or the lowest place above it that exists, which may be no folder."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
