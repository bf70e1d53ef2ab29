"""What dies, when, and how it comes back: by a seed, until every run has ended."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import psycopg
from sqlalchemy.engine import make_url
from storage.databases import postgres_server

from perfuse.errors import PerfuseError
from perfuse_trainer.resources import Run
from trainer.ray_installation import Installation

ACTOR, SERVER, NODE, CONNECTIONS = "actor", "server", "node", "connections"


@dataclass
class Chaos:
    """Kills by a seed, and does what Kubernetes would: what died comes back a little later.

    Attributes:
        struck: what was killed, and how often.
    """

    there: Installation
    lot: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    replacing: threading.Thread | None = None
    returns: dict[int, float] = field(default_factory=dict)

    def plan(self, kills: int, *, connections: bool) -> list[str]:
        """Every kind once, and then more of any."""
        kinds = [ACTOR, SERVER, NODE, *([CONNECTIONS] if connections else [])]
        chosen = kinds + self.lot.choices(kinds, k=max(0, kills - len(kinds)))
        self.lot.shuffle(chosen)
        return chosen

    def strike(self, kind: str) -> bool:
        """Kill one of a kind, if there is one."""
        done = {
            ACTOR: self._kill_actor,
            SERVER: self._kill_server,
            NODE: self._kill_node,
            CONNECTIONS: self._cut_connections,
        }[kind]()
        if done:
            self.struck[kind] += 1
            print(f"{time.strftime('%X')} killed: {kind}", flush=True)
        return done

    def restore(self) -> None:
        """Start again what died some time ago."""
        for place, pid in enumerate(self.there.servers):
            status = self.there.forge.status(pid)
            if status is None:
                continue
            assert status == -signal.SIGKILL, self.there.told()
            moment = self.returns.setdefault(pid, time.monotonic() + self.lot.uniform(0.0, 2.0))
            if time.monotonic() > moment:
                self.there.servers[place] = self.there.begin_server()

    def end(self) -> None:
        """Wait until nothing is being replaced any more."""
        if self.replacing is not None:
            self.replacing.join()

    def _kill_actor(self) -> bool:
        workers = self.there.cluster.workers()
        if workers:
            with suppress(psutil.NoSuchProcess):
                self.lot.choice(workers).kill()
                return True
        return False

    def _kill_server(self) -> bool:
        alive = [pid for pid in self.there.servers if self.there.forge.status(pid) is None]
        if not alive:
            return False
        os.kill(self.lot.choice(alive), signal.SIGKILL)
        return True

    def _kill_node(self) -> bool:
        # Not while nobody works: a node without workers is no loss.
        if (self.replacing and self.replacing.is_alive()) or not self.there.cluster.workers():
            return False
        cluster, pause = self.there.cluster, self.lot.uniform(0.0, 2.0)
        cluster.kill_node(self.lot.choice(cluster.raylets))

        def replace() -> None:
            time.sleep(pause)
            cluster.replace()

        self.replacing = threading.Thread(target=replace)
        self.replacing.start()
        return True

    def _cut_connections(self) -> bool:
        # The Trainer's, and half the time the Registry's too.
        cut_connections(self.there.shop.url)
        if self.lot.random() < 0.5:
            cut_connections(self.there.place.url)
        return True


def cut_connections(url: str) -> None:
    """End every connection to a PostgreSQL database, as a failover does."""
    with psycopg.connect(_administration(), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [make_url(url).database],
        )


def connections(url: str) -> int:
    """How many there are to a PostgreSQL database."""
    with psycopg.connect(_administration(), autocommit=True) as admin:
        found = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [make_url(url).database]
        ).fetchone()
    assert found is not None
    return int(found[0])


def _administration() -> str:
    server = postgres_server().set(drivername="postgresql")
    return server.render_as_string(hide_password=False)


def disturb(
    there: Installation, runs: list[Run], chaos: Chaos, plan: list[str], seconds: float
) -> None:
    """Kill what the plan says at random moments, until every run has ended."""
    until = time.monotonic() + seconds
    moment, steps = time.monotonic() + chaos.lot.uniform(0.0, 6.0), -1
    while True:
        assert time.monotonic() < until, there.told()
        try:
            seen = [there.shop.read(run) for run in runs]
        except PerfuseError:
            continue  # Our connections are cut like everybody's.
        if all(run.state.is_final for run in seen):
            break
        chaos.restore()
        made = sum(run.step for run in seen)
        if plan and time.monotonic() > moment and made > steps and chaos.strike(plan[0]):
            del plan[0]
            moment = time.monotonic() + chaos.lot.uniform(0.0, 4.0)
            # Coming up takes most of the time: every other kill waits for training to go on.
            steps = made if chaos.lot.random() < 0.5 else -1
        time.sleep(0.2)
    chaos.end()
