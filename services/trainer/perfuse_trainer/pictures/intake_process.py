"""The caller's side of the process that decodes pictures: it grants, waits, checks and ends it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

from perfuse.errors import FailedPrecondition, PictureRefused
from perfuse_trainer.pictures.intake_child import DETAIL, READY, REPLY, REQUEST, Verdict
from perfuse_trainer.pictures.picture_header import PictureHeader, several_frames, shown

PROGRAM = Path(__file__).with_name("intake_child.py")

# Address space. The costliest picture within the limits, a WebP of 25 megapixels with transparency,
# takes 640 MB.
MEMORY_BYTES = 1 << 30
CPU_SECONDS = 10
# By the clock, for a decoder that sleeps; generous, since the machine may be busy.
WALL_SECONDS = 60.0

# The shorter side of what is kept: the largest base model that we load (SDXL) is trained at 1024.
# Sixty-four photographs then fit in memory.
KEPT_SIDE = 1024

# The child's surroundings: enough to find Python and its libraries, no credentials.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR")

_AGAIN = "open it in a picture editor and save it again"


@dataclass(frozen=True)
class DecodedPicture:
    """Pixels as the child sent them, of a length that was checked.

    Attributes:
        width: after orientation and shrinking.
        height: likewise.
        full_size: width and height after orientation, before shrinking.
        pixels: row by row; three bytes each, or one for a mask.
        alpha: one byte each, or None where the picture is opaque everywhere.
    """

    width: int
    height: int
    full_size: tuple[int, int]
    pixels: bytearray
    alpha: bytearray | None


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of what is kept of a picture: the shorter side is at most `KEPT_SIDE`."""
    shorter = min(width, height)
    if shorter <= KEPT_SIDE:
        return width, height
    return round(width * KEPT_SIDE / shorter), round(height * KEPT_SIDE / shorter)


class IntakeProcess:
    """One process for any number of pictures, one at a time; a context manager.

    After a refusal for damage it can go on; after a decoder that stopped, it has ended.

    Args:
        memory: bytes of address space that it may take.
        cpu_seconds: of computing that each picture may take.
        wall_seconds: that each picture may take by the clock.

    Raises:
        FailedPrecondition: the process does not start.
    """

    def __init__(
        self,
        *,
        memory: int = MEMORY_BYTES,
        cpu_seconds: int = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
    ) -> None:
        self._memory, self._cpu, self._wall = memory, cpu_seconds, wall_seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: the program's own directory holds modules of ours, which it must not import.
            [sys.executable, "-P", str(PROGRAM), str(memory), str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={key: os.environ[key] for key in _INHERITED if key in os.environ},
        )
        # Popen's own annotations know neither that the pipes are there nor what they can do.
        self._requests = cast(io.BufferedWriter, self._process.stdin)
        self._replies = cast(io.BufferedReader, self._process.stdout)
        self._expired = threading.Event()
        with self._watched():
            ready = self._take(len(READY))
        if ready is None or bytes(ready) != READY:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            self.close()
            raise FailedPrecondition(
                f"the process that decodes pictures did not start ({last[:200] or 'no message'}); "
                "Pillow must be installed and "
                f"{memory >> 20} MiB of memory be free: pip install 'perfuse[trainer]'"
            )

    def decode(
        self, data: bytes, name: str, header: PictureHeader, *, is_mask: bool = False
    ) -> DecodedPicture:
        """Decode one picture, whose header has been judged.

        Args:
            data: the file's content.
            name: what to call it in an error.
            header: from `picture_header.judge` of the same bytes.
            is_mask: read one channel of marks rather than colours.

        Raises:
            PictureRefused: it is damaged or costs more than the limits allow.
        """
        kept = kept_size(header.width, header.height)
        with self._watched():
            # A child that ended early is noticed when nothing comes back.
            with contextlib.suppress(BrokenPipeError):
                self._requests.write(
                    REQUEST.pack(len(data), header.width, header.height, *kept, is_mask)
                )
                self._requests.write(data)
                self._requests.flush()
            head = self._take(REPLY.size)
            if head is None:
                raise PictureRefused(self._ended(name))
            number, turned, has_alpha = REPLY.unpack(head)
            if number != Verdict.READ:
                raise PictureRefused(self._refusal(name, number))
            channels = 1 if is_mask else 3
            pixels = self._take(kept[0] * kept[1] * channels)
            alpha = self._take(kept[0] * kept[1]) if has_alpha else None
            if pixels is None or (has_alpha and alpha is None):
                raise PictureRefused(self._ended(name))
        full = (header.width, header.height)
        if turned:
            kept, full = kept[::-1], full[::-1]
        return DecodedPicture(kept[0], kept[1], full, pixels, alpha)

    def close(self) -> None:
        """End the process and wait for its end; it keeps nothing that would be lost."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._replies, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def __enter__(self) -> IntakeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill the child if it is not done in time; whoever waits for it then reads its end."""

        def expire() -> None:
            self._expired.set()
            self._process.kill()

        clock = threading.Timer(self._wall, expire)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()

    def _take(self, count: int) -> bytearray | None:
        """Exactly `count` bytes, or None where the child ended before."""
        taken = bytearray(count)
        view, place = memoryview(taken), 0
        while place < count:
            got = self._replies.readinto(view[place:])
            if not got:
                return None
            place += got
        return taken

    def _refusal(self, name: str, number: int) -> str:
        words = b""
        length = self._take(DETAIL.size)
        if length is not None:
            words = bytes(self._take(min(DETAIL.unpack(length)[0], 200)) or b"")
        if number == Verdict.SEVERAL_FRAMES:
            return several_frames(name)
        if number == Verdict.TOO_MUCH_MEMORY:
            return (
                f"{shown(name)} takes more than {self._memory >> 20} MiB to decode, which is the "
                "limit: shrink it, or save it in another format"
            )
        said = "".join(letter for letter in words.decode(errors="replace") if letter.isprintable())
        return (
            f"{shown(name)} is damaged and cannot be decoded ({said or 'no reason given'}); a "
            f"picture must be whole: {_AGAIN}"
        )

    def _ended(self, name: str) -> str:
        code = self._process.wait()
        if self._expired.is_set():
            return (
                f"{shown(name)} was not decoded within {self._wall:g} seconds, which is the limit: "
                f"{_AGAIN}"
            )
        if code == -signal.SIGXCPU:
            return (
                f"{shown(name)} takes more than {self._cpu} seconds of computing to decode, which "
                f"is the limit: {_AGAIN}"
            )
        how = signal.strsignal(-code) if code < 0 else f"exit status {code}"
        return f"{shown(name)} made the decoder stop ({how}); a picture must be whole: {_AGAIN}"
