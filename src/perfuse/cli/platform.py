"""The three services on this machine: started together, watched, and ended in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from perfuse.cli.child_process import ChildProcess
from perfuse.cli.exits import Exit, Failure
from perfuse.cli.platform_home import PlatformHome
from perfuse.cli.service_settings import PlatformSettings, environment
from perfuse.cli.signals import Signals
from perfuse.client import BaseModel, Client, Connection
from perfuse.client.health import SERVICES, check
from perfuse.errors import FailedPrecondition, NotFound, Unavailable

__all__ = ["TITLES", "Interrupted", "Platform", "ServiceDied", "require_free_ports"]

TITLES = {"registry": "Registry", "trainer": "Trainer", "renderer": "Renderer"}
_POLL_SECONDS = 0.1
_WATCH_SECONDS = 0.5
_START_SECONDS = 600.0
"""Until a start counts as failed: a large base model on Ray may well take minutes."""
_DRAIN_SECONDS = 60.0
_DESCRIBE = "from perfuse.cli import main; main()"


class Interrupted(Exception):
    """The platform was told to end."""


class ServiceDied(Failure):
    """A service ended by itself.

    Attributes:
        lines: the last ones of its log.
    """

    def __init__(self, service: ChildProcess) -> None:
        self.lines = service.last_lines()
        said = self.lines[-1] if self.lines else "nothing"
        super().__init__(
            f"the {service.name} {service.ending()}, and so the others were ended. The last line "
            f"of {service.log}: {said}",
            reason="SERVICE_DIED",
            exit=Exit.REFUSED,
        )


def require_free_ports(settings: PlatformSettings) -> None:
    """See that the services can bind.

    Raises:
        FailedPrecondition: another process has a port.
    """
    for service, address in settings.addresses.items():
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise FailedPrecondition(
                    f"port {port}, which the {TITLES[service]} is to have, cannot be had "
                    f"({error.strerror}). Choose the first of three free ones with --port"
                ) from None


class Platform:
    """The three services as processes of this one.

    Args:
        settings: how it is to be.
        home: its folder, claimed.
        claim: the descriptor that `home.claimed` gave.
        signals: heard already.

    Attributes:
        connection: to it, as its owner.
    """

    def __init__(
        self, settings: PlatformSettings, home: PlatformHome, claim: int, signals: Signals
    ) -> None:
        self.connection: Connection = settings.connection(home.token(settings.tenant))
        self._settings, self._home, self._signals = settings, home, signals
        self._claim = claim
        self._services: dict[str, ChildProcess] = {}
        self._describing: dict[str, ChildProcess] = {}
        self._described: dict[str, Mapping[str, Any]] = {}

    def start(self) -> None:
        """Start everything at once; the Renderer first, for it takes longest."""
        for name, directory in self._settings.bases.items():
            known = self._home.described(name, directory)
            if known is not None:
                self._described[name] = known
        self._start_service("renderer")
        for name, directory in self._settings.bases.items():
            if name not in self._described:
                self._describing[name] = ChildProcess(
                    f"description of {name}",
                    ["-c", _DESCRIBE, "base", "show", str(directory), "--json"],
                    self._home.fresh_log(f"base-{name}"),
                    {**os.environ, "PERFUSE_TRACEBACK": ""},
                    self._claim,
                )
        self._start_service("registry")
        self._start_service("trainer")

    def wait_until_ready(self, told: Callable[[str, float], None]) -> None:
        """Until every service answers and every base model is registered.

        Args:
            told: called with a service's name and the seconds that it took.

        Raises:
            Interrupted: by a signal.
            Failure: a service died, or does not become ready.
            PerfuseError: a base model is not what it was, or cannot be one.
        """
        began = time.monotonic()
        waiting = list(SERVICES)
        while waiting or self._describing:
            if self._signals.came(_POLL_SECONDS):
                raise Interrupted
            self._require_alive()
            self._take_descriptions()
            for service in list(waiting):
                address = self._settings.addresses[service]
                if check(address, service=SERVICES[service]).state == "SERVING":
                    waiting.remove(service)
                    told(service, time.monotonic() - began)
            if time.monotonic() - began > _START_SECONDS:
                late = [*waiting, *(f"base-{name}" for name in self._describing)][0]
                raise Unavailable(
                    f"not everything is ready after {_START_SECONDS:g} seconds; see "
                    f"{self._home.logs / late}.log"
                )
        self._register()
        self._home.leave(self.connection)

    def watch(self) -> None:
        """Until a signal comes.

        Raises:
            Failure: a service died first.
        """
        while not self._signals.came(_WATCH_SECONDS):
            self._require_alive()

    def end(self) -> list[str]:
        """Let the services finish what is under way, the Registry last; a further signal kills.

        Returns:
            Sentences on what did not end in order.
        """
        for each in self._describing.values():
            each.kill()
        problems: list[str] = []
        for group in (("renderer", "trainer"), ("registry",)):
            ending = [self._services[name] for name in group if name in self._services]
            died = [each for each in ending if each.status is not None]
            for each in ending:
                if each not in died:
                    each.terminate()
            problems += self._await_end([each for each in ending if each not in died])
        return problems

    def _start_service(self, service: str) -> None:
        migrating = [] if service == "renderer" else ["--migrate"]
        self._services[service] = ChildProcess(
            TITLES[service],
            ["-m", f"perfuse_{service}", "serve", *migrating],
            self._home.fresh_log(service),
            environment(service, self._settings, self._home),
            self._claim,
        )

    def _require_alive(self) -> None:
        for each in self._services.values():
            if each.status is not None:
                raise ServiceDied(each)

    def _take_descriptions(self) -> None:
        for name, child in list(self._describing.items()):
            if child.status is None:
                continue
            text = child.log.read_text(errors="replace")
            if child.status:
                raise FailedPrecondition(_refusal(text) or f"the {child.name} {child.ending()}")
            # Among what libraries remark.
            begins = f"\n{text}".index("\n{\n")
            described, _ = json.JSONDecoder().raw_decode(text, begins)
            self._home.keep_described(name, self._settings.bases[name], described)
            self._described[name] = described
            del self._describing[name]

    def _register(self) -> None:
        """Make the base models known, if they are what the Renderer has loaded."""
        with Client(self.connection) as client:
            resident = {
                each.name: each.fingerprint for each in client.renderer.status().base_models
            }
            for name, described in self._described.items():
                full = f"baseModels/{name}"
                directory = self._settings.bases[name]
                try:
                    known = client.base_models.get(name).fingerprint
                except NotFound:
                    known = None
                if known is not None and known != resident[full]:
                    raise FailedPrecondition(
                        f"{directory} holds the base model {resident[full]}, but {name} is "
                        f"registered as {known}, which its concepts stand on. Put those files "
                        f"back, or give the new ones an id of their own: --base ID={directory}"
                    )
                if described["fingerprint"] != resident[full]:
                    self._home.forget_described(name)
                    raise FailedPrecondition(
                        f"{directory} holds other files than at the last start. Start again, and "
                        "it is looked at anew"
                    )
                if known is None:
                    client.base_models.create(_base_model(full, described))

    def _await_end(self, ending: list[ChildProcess]) -> list[str]:
        until = time.monotonic() + _DRAIN_SECONDS
        while any(each.status is None for each in ending):
            if self._signals.came(_POLL_SECONDS) or time.monotonic() > until:
                for each in ending:
                    each.kill()
        return [
            f"the {each.name} {each.ending()}; see {each.log}"
            for each in ending
            # One that was still starting does not hear otherwise.
            if each.status not in (0, -signal.SIGTERM)
        ]


def _base_model(name: str, described: Mapping[str, Any]) -> BaseModel:
    """As the Registry is told, from what `perfuse base show --json` said."""
    return BaseModel(
        name=name,
        fingerprint=described["fingerprint"],
        architecture=described["architecture"],
        conditioning_width=described["conditioning_width"],
        layers=described["layers"],
        encoders=described["encoders"],
        covariance_digest=(described["covariance"] or {}).get("digest", ""),
    )


def _refusal(text: str) -> str:
    """The message of a refusal as JSON, the last line of what a command said."""
    for line in reversed(text.splitlines()):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("message"), str):
            return str(told["message"])
    return ""
