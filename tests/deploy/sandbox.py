"""A container started as a process: its command, its settings, and no more rights than it has.

Where the kernel lets this process, as root or through a user namespace of its own, a container has
a tree of processes of its own, in which it is the first one; its user and group; no capability;
everything read-only but its `emptyDir` volumes and /dev/shm; and its files under /mnt. Elsewhere it
is a process of the same user, told to write where its volumes are.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deploy.manifests import ROOT, Manifest, Pod
from perfuse_toybox.base import DIRECTORY

_INSIDE = Path("/mnt")
_ENTER = """
mount --bind "$1" /mnt
# Python and the checkout, where they are in a home that only its owner may walk through, or in
# /tmp, which the container has for itself.
number=0
for place in $6; do
    number=$((number + 1))
    mkdir -p "/mnt/needed-$number"
    mount --bind "$place" "/mnt/needed-$number"
done
for closed in $5; do mount -t tmpfs -o mode=755 closed "$closed"; done
number=0
for place in $6; do
    number=$((number + 1))
    mkdir -p "$place"
    mount --bind -o ro "/mnt/needed-$number" "$place"
done
mount --bind "/mnt/$2" /tmp
number=0
for place in $6; do
    number=$((number + 1))
    case $place in /tmp/*)
        mkdir -p "$place"
        mount --bind -o ro "/mnt/needed-$number" "$place" ;;
    esac
done
mount --bind /mnt/nothing /var/tmp
# What its owner may write to, whom a user namespace makes the container's own user.
for volume in $7; do mount --bind "/mnt/$volume" "/mnt/$volume"; done
while [ $number -gt 0 ]; do
    mount -o remount,bind,ro "/mnt/needed-$number"
    number=$((number - 1))
done
mount -o remount,bind,ro /mnt
mount -o remount,bind,ro /
cd /
user=$3 group=$4 owner=$8
shift 8
set -- --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
[ "$owner" = 0 ] && exec setpriv --reuid "$user" --regid "$group" --clear-groups "$@"
exec unshare --user --map-user="$user" --map-group="$group" --keep-caps setpriv "$@"
"""
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")


@functools.cache
def entrance() -> tuple[str, ...]:
    """What a command is put behind to have namespaces of its own; nothing where it cannot have."""
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return ()
    tried = _UNSHARE if not os.geteuid() else (*_UNSHARE, "--user", "--map-root-user")
    inner = "unshare --user --map-user=1 --map-group=1 --keep-caps true"
    trial = [*tried, "sh", "-ec", f"mount --rbind /mnt /mnt; mount -t tmpfs a /mnt; {inner}"]
    return tried if subprocess.run(trial, capture_output=True).returncode == 0 else ()


def confined() -> bool:
    """Whether containers have namespaces of their own here."""
    return bool(entrance())


@functools.cache
def closed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders through which only their owner may walk to what is needed, and what is to be brought.

    What is needed from /tmp is to be brought too, since a container has its own.
    """
    needed = {Path(sys.base_prefix), Path(sys.prefix), ROOT, Path(DIRECTORY)}
    barred: dict[Path, list[Path]] = {}
    for place in sorted(needed):
        for folder in reversed(place.parents):
            if not folder.stat().st_mode & 0o001:
                barred.setdefault(folder, []).append(place)
                break
    inner = [place for places in barred.values() for place in places]
    inner += [place for place in needed if Path("/tmp") in place.parents and place not in inner]
    # What lies within another comes with it.
    outermost = [place for place in inner if not any(other in place.parents for other in inner)]
    return tuple(map(str, barred)), tuple(map(str, outermost))


def image_settings(service: str) -> dict[str, str]:
    """What the service's Dockerfile sets in the environment, but for the path of programs."""
    text = (ROOT / f"services/{service}/Dockerfile").read_text().rpartition("\nFROM ")[2]
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    pairs = (pair.partition("=") for pair in block.replace("\\\n", " ").split())
    return {name: value for name, _, value in pairs if name != "PATH"}


@dataclass
class Sandbox:
    """Starts a container of a pod.

    Attributes:
        pod: its pod.
        container: of it.
        home: a folder for its volumes and its words.
        secrets: name of a Secret → its keys.
        replaced: what stands for something else in settings, as addresses do.
        ports: as the manifest has them → as they are here.
        besides: settings that no manifest has.
    """

    pod: Pod
    container: Manifest
    home: Path
    secrets: Mapping[str, Mapping[str, str | bytes]]
    replaced: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[int, int] = field(default_factory=dict)
    besides: Mapping[str, str] = field(default_factory=dict)

    @property
    def writable(self) -> dict[str, str]:
        """Path of each `emptyDir` volume in the manifest → where the container finds it here."""
        empty = [path for path, volume in self._mounts() if "emptyDir" in volume]
        return {path: str(self._inside / _folder_name(path)) for path in empty}

    def start(self, *command: str) -> Container:
        """Its command, or another one with the same rights."""
        self.home.chmod(0o755)
        places = {path: self._volume(path, volume) for path, volume in self._mounts()}
        nothing = self._folder("nothing", 0o555)
        inside = self._inside
        told = self.pod.environment(self.container)
        image = self.container["image"].partition(":")[0].removeprefix("perfuse-")
        settings = image_settings(image) | {
            name: self._value(value) for name, value in told.items()
        }
        settings = {
            name: self._placed(value, inside, places if name != "HOME" else {})
            for name, value in settings.items()
        }
        temporary = places.get("/tmp", nothing)
        if not confined():
            settings |= {"HOME": str(temporary), "TMPDIR": str(temporary)}
        program, *arguments = command or [
            self._placed(part, inside, places) for part in self.container["command"]
        ]
        whole = [str(Path(sys.executable).with_name(program)), *arguments]
        if confined():
            context = {**self.pod.spec["securityContext"], **self.container["securityContext"]}
            user, group = str(context["runAsUser"]), str(context["runAsGroup"])
            barred, needed = map(" ".join, closed())
            empty = " ".join(map(_folder_name, self.writable))
            names = (str(self.home), temporary.name, user, group, barred, needed, empty)
            whole = [*entrance(), "sh", "-ec", _ENTER, "sh", *names, str(os.geteuid()), *whole]
        said = self.home / "said.txt"
        with said.open("ab") as words:
            process = subprocess.Popen(
                whole,
                env={"PATH": os.environ["PATH"], **settings, **self.besides},
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                cwd=nothing,
            )
        return Container(process, said)

    @property
    def _inside(self) -> Path:
        """Its home, as it sees it."""
        return _INSIDE if confined() else self.home

    def _mounts(self) -> Any:
        return self.pod.mounts(self.container).items()

    def _folder(self, name: str, mode: int) -> Path:
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        return folder

    def _volume(self, path: str, volume: Manifest) -> Path:
        """The folder of a volume, filled."""
        folder = self._folder(_folder_name(path), 0o755)
        if "emptyDir" in volume:
            folder.chmod(0o777)
            return folder
        if "secret" in volume:
            files = self.secrets[volume["secret"]["secretName"]]
        else:
            name = volume["configMap"]["name"]
            (files,) = (
                each["data"]
                for each in self.pod.resources
                if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name
            )
        for name, content in files.items():
            file = folder / name
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
            file.chmod(0o444)
        return folder

    def _value(self, value: str | tuple[str, str]) -> str:
        found = self.secrets[value[0]][value[1]] if isinstance(value, tuple) else value
        return found.decode() if isinstance(found, bytes) else found

    def _placed(self, value: str, inside: Path, places: Mapping[str, Path]) -> str:
        """A setting with its paths, addresses and ports as they are here."""
        for path, folder in places.items():
            if value == path or value.startswith(f"{path}/"):
                return str(inside / folder.name) + value.removeprefix(path)
        for theirs, ours in self.replaced.items():
            value = value.replace(theirs, ours)
        if listened := re.fullmatch(r"0\.0\.0\.0:(\d+)", value):
            # A job is told where its server listens, and does not listen.
            return f"0.0.0.0:{self.ports.get(int(listened[1]), listened[1])}"
        return value


def _folder_name(path: str) -> str:
    return path.strip("/").replace("/", "-")


class Container:
    """A container that runs, or has run.

    Args:
        process: it, or what holds its namespaces.
        said: file of what it said.
    """

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self._process = process
        self._said = said
        self._waiting = threading.Lock()

    @property
    def said(self) -> str:
        """All it said."""
        return self._said.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Signal its first process, as a kubelet does."""
        if confined():
            for first in psutil.Process(self._process.pid).children():
                first.send_signal(number)
        else:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with all that it started."""
        if self.ended:
            return
        started = [] if confined() else psutil.Process(self._process.pid).children(recursive=True)
        self.signal(signal.SIGKILL)
        for each in started:
            each.kill()

    def wait(self, seconds: float) -> int:
        """Its exit status; 128 and the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        with self._waiting:
            status = self._process.wait(seconds)
        return status if status >= 0 else 128 - status
