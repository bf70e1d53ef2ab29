"""Ray, started for this process alone or joined where it runs; quiet, and not open to strangers."""

from __future__ import annotations

import logging
import math
import os
import secrets
from typing import Any

import ray

from perfuse.errors import Unavailable

_STARTS = 3


def join(
    address: str | None, variable: str, *, cpus: float = 0, object_store_megabytes: int = 256
) -> None:
    """Connect this process to a Ray cluster.

    To be called on the main thread: the kernel ends the processes of a cluster that is started
    here with the thread that began them, so that none is left behind even by a kill.

    Args:
        address: of a cluster; None starts one for this process alone, which ends with it.
        variable: of the environment that named the address, for messages.
        cpus: that a cluster started here should have room for; only Ray's book-keeping, since a
            machine with fewer has its actors share them.
        object_store_megabytes: of a cluster started here.

    Raises:
        Unavailable: there is no cluster at the address.
    """
    _set_environment(owned=address is None)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        own: dict[str, Any] = {
            "num_cpus": max(os.cpu_count() or 1, math.ceil(cpus)),
            "include_dashboard": False,
            "object_store_memory": object_store_megabytes << 20,
            "_node_ip_address": "127.0.0.1",
            **quiet,
        }
        _start(own)
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"no Ray cluster answers at {address}: {error}. Start it, or unset {variable} to have "
            "one started here"
        ) from None


def _start(options: dict[str, Any]) -> None:
    """Start a cluster; Ray gives its node half a minute, which a busy machine may not keep to."""
    for attempt in range(_STARTS):
        try:
            ray.init("local", **options)
        except Exception as error:
            ray.shutdown()
            if attempt == _STARTS - 1:
                raise Unavailable(
                    f"Ray does not start on this machine ({error}). Give it more of the machine, "
                    "or join a cluster elsewhere"
                ) from error
        else:
            return


def _set_environment(*, owned: bool) -> None:
    """What Ray reads, and hands on to its processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not owned:
        return
    # Ray would give its actors what others leave of the machine; here they are what it is for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray's ports are open to whoever has the token: nobody but this process and its own.
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode == "token" and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # It read them when it was imported; as `ray.init` does where it chooses the mode itself.
    internals: Any = ray._raylet
    internals.Config.initialize("")
    internals.AuthenticationTokenLoader.instance().reset_cache()
