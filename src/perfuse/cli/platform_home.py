"""The one folder in which `perfuse up` keeps a platform, and who may use it at a time.

    registry.db  adapters/     the Registry's
    trainer.db   trainer/      the Trainer's
    renderer/                  adapters that the Renderer fetched
    tokens                     digests of tokens, which all three read
    credentials.json           the tokens themselves, for later starts
    bases/                     what each base model is, so that later starts need not load it
    logs/                      of this start, and of the one before
    up.toml                    how to reach it, for every other command
    up.lock                    held while it runs

All of it is the owner's alone to read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perfuse.client import Connection
from perfuse.client.connection import LEFT_BY_UP
from perfuse.errors import FailedPrecondition

__all__ = ["PlatformHome"]

_DELEGATE = ("platform", "trainer", ("delegate",))
_CUSTODIAN = ("platform", "renderer", ("custodian",))
_OWNER_ROLES = ("admin", "operator")


class PlatformHome:
    """A platform's folder.

    Args:
        folder: made where it is missing, for its owner alone.

    Attributes:
        folder: as an absolute path.
        tokens: the services' token file.
        logs: their logs' folder.
        connection_file: what `Connection.find` reads.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.tokens = self.folder / "tokens"
        self.logs = self.folder / "logs"
        self.connection_file = self.folder / LEFT_BY_UP
        self._credentials = self.folder / "credentials.json"
        self._bases = self.folder / "bases"
        for each in (self.folder, self.logs, self._bases):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def claimed(self) -> Iterator[int]:
        """The folder for this process alone, and for those that inherit the descriptor.

        Raises:
            FailedPrecondition: a platform runs in it, or still ends.
        """
        import fcntl  # Not everywhere where the other commands run.

        descriptor = os.open(self.folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FailedPrecondition(self._who_has_it(descriptor)) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def token(self, tenant: str) -> str:
        """The token of a tenant's owner, who is this installation's operator too."""
        return self._token(f"tenant {tenant}", (tenant, "owner", _OWNER_ROLES))

    def delegate_token(self) -> str:
        """The token that the Trainer publishes with."""
        return self._token("delegate", _DELEGATE)

    def custodian_token(self) -> str:
        """The token that the Renderer fetches adapters with that are shared for rendering alone."""
        return self._token("custodian", _CUSTODIAN)

    def leave(self, connection: Connection) -> None:
        """Write down, in one move, how to reach the platform."""
        said = {
            "registry": connection.registry,
            "trainer": connection.trainer,
            "renderer": connection.renderer,
            "tenant": connection.tenant,
            "token": connection.token,
        }
        # Quoted as in JSON: these are ASCII, for which TOML's rules are the same.
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in said.items()]
        _write(self.connection_file, "# Left by `perfuse up`.\n" + "".join(lines))

    def described(self, base_model: str, directory: Path) -> Mapping[str, Any] | None:
        """What `perfuse base show --json` said of a directory at an earlier start."""
        kept = _read(self._bases / f"{base_model}.json")
        return kept["base"] if kept.get("directory") == str(directory) else None

    def keep_described(self, base_model: str, directory: Path, base: Mapping[str, Any]) -> None:
        """Spare later starts the loading."""
        kept = {"directory": str(directory), "base": base}
        _write(self._bases / f"{base_model}.json", json.dumps(kept, indent=1) + "\n")

    def forget_described(self, base_model: str) -> None:
        """What was kept is of other files than there are now."""
        (self._bases / f"{base_model}.json").unlink(missing_ok=True)

    def fresh_log(self, service: str) -> Path:
        """An empty log; that of the start before stays beside it."""
        log = self.logs / f"{service}.log"
        with suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        return log

    def _token(self, key: str, record: tuple[str, str, tuple[str, ...]]) -> str:
        kept = _read(self._credentials)
        token = kept.get(key)
        if isinstance(token, str) and _digest(token) in self._digests():
            return token
        token = "perfuse_" + secrets.token_urlsafe(32)
        # Kept first: one that is in force must not be lost.
        _write(self._credentials, json.dumps({**kept, key: token}, indent=1) + "\n")
        tenant, subject, roles = record
        # A line as `perfuse-registry token` writes it, which takes seconds to start.
        before = self._digests()
        parted = "" if not before or before.endswith("\n") else "\n"
        line = {"tenant": tenant, "subject": subject, "roles": roles, "sha256": _digest(token)}
        descriptor = os.open(self.tokens, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(parted + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return token

    def _digests(self) -> str:
        return self.tokens.read_text() if self.tokens.exists() else ""

    def _who_has_it(self, descriptor: int) -> str:
        pid = os.pread(descriptor, 32, 0).decode(errors="replace")
        try:
            os.kill(int(pid), 0)
        except (ValueError, ProcessLookupError):
            return (
                f"the services of an earlier `perfuse up` in {self.folder} are still ending; try "
                "again in a moment"
            )
        except PermissionError:
            pass
        return (
            f"`perfuse up` runs already in {self.folder}, as process {pid}. Use it, end it with "
            "Ctrl-C there, or choose another folder with --home and other ports with --port"
        )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, text: str) -> None:
    """A file for its owner alone, whole or not at all, whenever the machine stops."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
