"""The Registry beside MLflow's model registry server, in one run on one machine.

    python -m bench.registry [--quick] [--out FOLDER]

Ours runs twice, over PostgreSQL with an S3 server and over SQLite with a directory; MLflow runs on
the same PostgreSQL server. Each operation is measured on all three in turn, and all operations
again in every round, so that whatever else the machine does meets all of them. Who calls is a
process of its own (`registry_load`). What each does for a created version is not the same: ours
takes 30 KB, judges and digests them, stores them durably and remembers the request for its
repetition; MLflow writes a row with a URI. `registry_filling` says what the databases hold.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench import registry_mlflow, registry_servers
from bench.registry_filling import PAGE, Job, fill_mlflow, fill_registry, holds
from bench.registry_sample import adapter
from bench.registry_show import draw, table

RESULTS = Path(__file__).parent / "results"
SIZES = (100, 1_000, 10_000, 100_000)
CLIENTS = 32
OURS, EMBEDDED, THEIRS = "PostgreSQL + S3", "SQLite + directory", "MLflow"


@dataclass(frozen=True)
class Plan:
    """How long to measure what.

    Attributes:
        sizes: Versions of the concepts that are listed.
        clients: Callers at a time, where there are many.
        rounds: Over which medians are taken.
        warm, seconds: Of one measurement, the first part dropped.
    """

    sizes: Sequence[int] = SIZES
    clients: int = CLIENTS
    rounds: int = 5
    warm: float = 0.15
    seconds: float = 0.6

    def cells(self) -> list[tuple[str, int]]:
        """Operations, each with the number of callers."""
        both = [
            (name, clients)
            for name in ("get", "alias", "create", f"list {self.sizes[-1]}", "download")
            for clients in (1, self.clients)
        ]
        flat = [(f"{page} {size}", 1) for page in ("list", "middle") for size in self.sizes]
        return both + [cell for cell in flat if cell not in both]


QUICK = Plan(rounds=2, seconds=0.25)


class Contender:
    """A server that is measured: who calls it, what they ask, whose CPU it takes."""

    def __init__(self, caller: subprocess.Popen[str], jobs: dict[str, Job], pids: list[int]):
        self.jobs = jobs
        self._caller, self._pids = caller, pids

    def measure(self, operation: str, clients: int, plan: Plan) -> dict[str, Any]:
        """One measurement; see `registry_load.perform`.

        Raises:
            RuntimeError: a request was refused, or answered with something else.
        """
        times = {"clients": clients, "warm": plan.warm, "seconds": plan.seconds}
        job = {**self.jobs[operation], **times}
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        spent = registry_servers.cpu_seconds(self._pids)
        self._caller.stdin.write(json.dumps(job) + "\n")
        self._caller.stdin.flush()
        line = self._caller.stdout.readline()
        if not line:
            raise RuntimeError(f"the callers died at {operation}; their last words stand above")
        done: dict[str, Any] = json.loads(line)
        spent = registry_servers.cpu_seconds(self._pids) - spent
        done["server_cpu"] = spent / max(1, done["turns"])
        if done["failures"]:
            raise RuntimeError(f"{operation}: {done['failures']} refused: {done['problem']}")
        if not holds(job, base64.b64decode(done["first"])):
            raise RuntimeError(f"{operation}: the answer is not what was asked for")
        return done


@dataclass
class Record:
    """What one operation cost on one server, over the rounds."""

    rates: list[float] = field(default_factory=list)
    microseconds: list[int] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)

    def add(self, done: dict[str, Any]) -> None:
        """One round's measurement."""
        self.rates.append(done["rate"])
        self.microseconds += done["microseconds"]
        self.server_cpu.append(done["server_cpu"])
        self.client_cpu.append(done["client_cpu"])

    def summary(self) -> dict[str, float]:
        """Rates and CPU as medians over rounds, latencies over all requests of all rounds."""
        ordered = sorted(self.microseconds)
        return {
            "per_second": round(statistics.median(self.rates), 1),
            "p50_ms": round(ordered[len(ordered) // 2] / 1000, 3),
            "p99_ms": round(ordered[len(ordered) * 99 // 100] / 1000, 3),
            "requests": len(ordered),
            "server_cpu_ms": round(1000 * statistics.median(self.server_cpu), 3),
            "client_cpu_ms": round(1000 * statistics.median(self.client_cpu), 3),
        }


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
        postgres = enter(registry_servers.postgres())
        bucket, store = enter(registry_servers.s3(folder))
        found = {}
        for name, url, at, also in (
            (OURS, postgres.create("perfuse"), bucket, [postgres.pid, store]),
            (EMBEDDED, f"sqlite:///{folder}/registry.db", None, []),
        ):
            ours = enter(registry_servers.registry(folder / f"ours-{len(found)}", url, at))
            jobs = fill_registry(ours, plan.sizes, plan.clients)
            caller = enter(
                callers("grpc", target=ours.target, token=ours.token, clients=plan.clients)
            )
            found[name] = Contender(caller, jobs, [ours.pid, *also])
        if mlflow is not None:
            theirs = enter(
                registry_servers.mlflow(folder / "mlflow", mlflow, postgres.create("mlflow"))
            )
            jobs = fill_mlflow(theirs, plan.sizes, plan.clients)
            caller = enter(
                callers("http", host=theirs.host, port=theirs.port, clients=plan.clients)
            )
            found[THEIRS] = Contender(caller, jobs, [theirs.pid, postgres.pid])
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
                if operation in servers[name].jobs
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


def ratios(measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Requests a second as multiples of MLflow's, by operation and server of ours."""
    return {
        operation: {
            name: round(summary["per_second"] / servers[THEIRS]["per_second"], 2)
            for name, summary in servers.items()
            if name != THEIRS
        }
        for operation, servers in measured.items()
        if THEIRS in servers
    }


def flatness(measured: dict[str, dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """Median time of a page of the largest concept as a multiple of the smallest one's."""
    found: dict[str, Any] = {}
    for page in ("list", "middle"):
        small = measured[f"{page} {sizes[0]}, 1 client"]
        large = measured[f"{page} {sizes[-1]}, 1 client"]
        found[page] = {
            name: round(large[name]["p50_ms"] / small[name]["p50_ms"], 2) for name in small
        }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the ratios, and keep figures and a plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.registry", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a minute instead of five")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where figures and plot go")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    python = registry_mlflow.environment()
    console = Console(stderr=True)
    measured = measure(plan, python, console)
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "plan": {**vars(plan), "page": PAGE, "adapter_bytes": len(adapter())},
        "versions": {name: version(name) for name in ("grpcio", "sqlalchemy", "psycopg", "moto")},
        "mlflow": {"workers": registry_mlflow.WORKERS, **registry_mlflow.versions(python)},
        "measured": measured,
        "ratio_to_mlflow": ratios(measured),
        "largest_to_smallest_list": flatness(measured, plan.sizes),
    }
    Console().print(table(record))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "registry.json").write_text(json.dumps(record, indent=2) + "\n")
    draw(record).savefig(chosen.out / "registry.png", dpi=120)


if __name__ == "__main__":
    main()
