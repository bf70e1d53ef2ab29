"""The Registry beside MLflow's model registry server, in one run on one machine.

    python -m bench.registry [--quick] [--out FOLDER]

Ours runs over PostgreSQL with an S3 server, over PostgreSQL with a directory, and over SQLite with
a directory. The record says which S3 server it was (`registry_store`); its CPU is told apart. Ours
and MLflow have as many processes each, on the same PostgreSQL server. Each operation is measured on
all in turn, and all operations again in every round, so that whatever else the machine does meets
all of them. Who calls is a process of its own (`registry_load`).

"download" has every adapter come from the store. "download again" is asked of a second server over
the same database and store, which keeps what it gave out in memory for a minute, as it does by
default: 32 adapters, most of them read before. MLflow has no such memory and does the same twice.

What each does for a new version is not the same: "create" stores 30 KB in ours and a row in MLflow,
"publish" stores 30 KB in both; `registry_filling` says it in full, and what the databases hold.
Every caller creates under a concept of its own.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench import registry_mlflow, registry_servers, registry_store
from bench.registry_callers import Job
from bench.registry_figures import THEIRS, Record, describe
from bench.registry_filling import AGAIN, PAGE, fill_mlflow, fill_registry, holds
from bench.registry_sample import adapter
from bench.registry_show import draw, table

RESULTS = Path(__file__).parent / "results"
SIZES = (100, 1_000, 10_000, 100_000)
CLIENTS = 32
OURS = ("PostgreSQL + S3", "PostgreSQL + directory", "SQLite + directory")


@dataclass(frozen=True)
class Plan:
    """How long to measure what.

    Attributes:
        servers: Of ours; MLflow comes in where `measure` is given it.
        sizes: Versions of the concepts that are listed.
        clients: Callers at a time, where there are many.
        rounds: Over which medians are taken.
        warm, seconds: Of one measurement, the first part dropped.
        workers: Processes of each server; MLflow's always are as many as it has by default.
    """

    servers: Sequence[str] = OURS
    sizes: Sequence[int] = SIZES
    clients: int = CLIENTS
    rounds: int = 5
    warm: float = 0.15
    seconds: float = 0.4
    workers: int = registry_mlflow.WORKERS

    def cells(self) -> list[tuple[str, int]]:
        """Operations, each with the number of callers."""
        both = [
            (name, clients)
            for name in (
                *("get", "alias", "create", "publish", "download", AGAIN),
                f"list {self.sizes[-1]}",
            )
            for clients in (1, self.clients)
        ]
        flat = [(f"{page} {size}", 1) for page in ("list", "middle") for size in self.sizes]
        return both + [cell for cell in flat if cell not in both]


QUICK = Plan(rounds=1, seconds=0.3)


class Contender:
    """A server that is measured.

    Args:
        caller: The process that calls it.
        jobs: What can be asked, by operation.
        pids: Whose CPU it takes: of the server, and of the database and the store that it uses.
        replica: Another server over the same database and store, for the operations that it has.
    """

    def __init__(
        self,
        caller: subprocess.Popen[str],
        jobs: dict[str, Job],
        pids: dict[str, int],
        replica: Contender | None = None,
    ) -> None:
        self.jobs = jobs
        self._caller, self._pids, self._replica = caller, pids, replica

    @property
    def operations(self) -> set[str]:
        """What can be asked here."""
        return self.jobs.keys() | (self._replica.operations if self._replica else set())

    def _spent(self) -> dict[str, float]:
        return {part: registry_servers.cpu_seconds(pid) for part, pid in self._pids.items()}

    def measure(self, operation: str, clients: int, plan: Plan) -> dict[str, Any]:
        """One measurement; see `registry_load.perform`.

        Raises:
            RuntimeError: nothing was answered, or something else than what was asked for.
        """
        if self._replica is not None and operation in self._replica.operations:
            return self._replica.measure(operation, clients, plan)
        times = {"clients": clients, "warm": plan.warm, "seconds": plan.seconds}
        job = {**self.jobs[operation], **times}
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        before = self._spent()
        self._caller.stdin.write(json.dumps(job) + "\n")
        self._caller.stdin.flush()
        line = self._caller.stdout.readline()
        if not line:
            raise RuntimeError(f"the callers died at {operation}; their last words stand above")
        done: dict[str, Any] = json.loads(line)
        done["cpu"] = {
            part: (spent - before[part]) / max(1, done["turns"])
            for part, spent in self._spent().items()
        }
        done["cpu"]["callers"] = done["client_cpu"]
        if not done["microseconds"]:
            raise RuntimeError(f"{operation}: nothing was answered: {done['problem']}")
        if not holds(job, base64.b64decode(done["first"])):
            raise RuntimeError(f"{operation}: the answer is not what was asked for")
        return done


@contextmanager
def callers(kind: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of `registry_load`."""
    command = [sys.executable, "-m", "bench.registry_load", json.dumps({"kind": kind, **settings})]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@contextmanager
def contenders(folder: Path, plan: Plan, mlflow: Path | None) -> Iterator[dict[str, Contender]]:
    """All servers, filled; MLflow only where its interpreter is given."""
    with ExitStack() as stack:
        enter = stack.enter_context
        used = " ".join(plan.servers)
        postgres = enter(registry_servers.postgres()) if mlflow or "PostgreSQL" in used else None
        endpoint, store = enter(registry_store.s3(folder)) if "S3" in used else ("", 0)
        found: dict[str, Contender] = {}
        for index, name in enumerate(plan.servers):
            pids = {}
            url = f"sqlite:///{folder}/registry-{index}.db"
            if postgres is not None and "PostgreSQL" in name:
                url, pids["database"] = postgres.create(f"registry_{index}"), postgres.pid
            bucket = None
            if "S3" in name:
                bucket, pids["store"] = endpoint, store
            files = folder / f"adapters-{index}"
            workers = {"WORKERS": str(plan.workers)}
            # Every adapter comes from the store; but from the replica, which has its default.
            ours, replica = (
                enter(
                    registry_servers.registry(folder / f"{kind}-{index}", url, bucket, files, **has)
                )
                for kind, has in (
                    ("ours", workers | {"ADAPTER_MEGABYTES": "0"}),
                    ("replica", workers),
                )
            )
            jobs = fill_registry(ours, plan.sizes, plan.clients)
            calling, again = (
                enter(callers("grpc", target=each.target, token=each.token, clients=plan.clients))
                for each in (ours, replica)
            )
            found[name] = Contender(
                calling,
                jobs,
                {"server": ours.pid, **pids},
                Contender(again, {AGAIN: jobs["download"]}, {"server": replica.pid, **pids}),
            )
        if mlflow is not None and postgres is not None:
            theirs = enter(
                registry_servers.mlflow(folder / "mlflow", mlflow, postgres.create("mlflow"))
            )
            jobs = fill_mlflow(theirs, plan.sizes, plan.clients)
            caller = enter(
                callers("http", host=theirs.host, port=theirs.port, clients=plan.clients)
            )
            found[THEIRS] = Contender(
                caller, jobs, {"server": theirs.pid, "database": postgres.pid}
            )
        yield found


def measure(plan: Plan, mlflow: Path | None, console: Console) -> dict[str, dict[str, Any]]:
    """Operation → server → summary; operations are written `get, 32 clients`."""
    records: dict[str, dict[str, Record]] = {}
    progress = Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with tempfile.TemporaryDirectory(prefix="perfuse-bench-") as home, progress:
        starting = progress.add_task("starting and filling the servers", total=None)
        with contenders(Path(home), plan, mlflow) as servers:
            progress.remove_task(starting)
            turns = [
                (operation, clients, name)
                for operation, clients in plan.cells()
                for name in servers
                if operation in servers[name].operations
            ]
            task = progress.add_task("the Registry beside MLflow", total=plan.rounds * len(turns))
            for _ in range(plan.rounds):
                for operation, clients, name in turns:
                    done = servers[name].measure(operation, clients, plan)
                    key = f"{operation}, {clients} client{'s' * (clients > 1)}"
                    records.setdefault(key, {}).setdefault(name, Record()).add(done)
                    progress.advance(task)
    return {
        operation: {name: record.summary() for name, record in by_server.items()}
        for operation, by_server in records.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the ratios, and keep figures and a plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.registry", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--quick", action="store_true", help="a minute instead of five; kept nowhere"
    )
    parser.add_argument("--out", type=Path, help="folder of figures and plot: bench/results")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    python = registry_mlflow.environment()
    console = Console(stderr=True)
    measured = measure(plan, python, console)
    record = {
        **describe({**vars(plan), "page": PAGE, "adapter_bytes": len(adapter())}, measured),
        "s3": registry_store.described(),
        "mlflow": registry_mlflow.versions(python),
    }
    Console().print(table(record))
    out = chosen.out or (None if chosen.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "registry.json").write_text(json.dumps(record, indent=2) + "\n")
        draw(record).savefig(out / "registry.png", dpi=120)


if __name__ == "__main__":
    main()
