"""The Registry's benchmark still runs: servers, callers, figures, plot; MLflow left out."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rich.console import Console

from bench.registry import Plan, measure
from bench.registry_callers import HttpCallers
from bench.registry_figures import describe, ratios
from bench.registry_load import perform
from bench.registry_show import draw, table

PLAN = Plan(
    servers=("SQLite + directory",),
    sizes=(100, 200),
    clients=2,
    rounds=1,
    warm=0.0,
    seconds=0.02,
    workers=1,
)


def test_every_operation_of_ours_is_measured_and_drawn(tmp_path: Path) -> None:
    measured = measure(PLAN, None, Console(quiet=True))

    assert list(measured) == [
        "get, 1 client",
        "get, 2 clients",
        "alias, 1 client",
        "alias, 2 clients",
        "create, 1 client",
        "create, 2 clients",
        "publish, 1 client",
        "publish, 2 clients",
        "download, 1 client",
        "download, 2 clients",
        "download again, 1 client",
        "download again, 2 clients",
        "list 200, 1 client",
        "list 200, 2 clients",
        "list 100, 1 client",
        "middle 100, 1 client",
        "middle 200, 1 client",
    ]
    for servers in measured.values():
        (summary,) = servers.values()
        assert summary["requests"] > 0
        assert summary["failures"] == 0
        assert summary["per_second"] > 0
        assert summary["p50_ms"] <= summary["p99_ms"]
    record = json.loads(json.dumps(describe({**vars(PLAN), "page": 50}, measured)))
    assert record["largest_to_smallest_list"]["list"]["SQLite + directory"] > 0
    Console(quiet=True).print(table(record))
    draw(record).savefig(tmp_path / "plot.png")


def test_a_ratio_is_ours_over_theirs() -> None:
    measured = {
        "get, 1 client": {"ours": {"per_second": 30.0}, "MLflow": {"per_second": 10.0}},
        "download, 1 client": {"ours": {"per_second": 30.0}},
    }
    assert ratios(measured) == {"get, 1 client": {"ours": 3.0}}


class _Peer(BaseHTTPRequestHandler):
    """Answers as MLflow does: one version, with its length; nothing of the model `gone`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        body = json.dumps({"asked": asked}).encode()
        self.send_response(404 if asked["name"] == ["gone"] else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def _peer() -> Iterator[HttpCallers]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Peer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield HttpCallers("127.0.0.1", server.server_port, 2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def _perform(callers: HttpCallers, model: str) -> dict[str, Any]:
    job = {"operation": "get", "model": model, "versions": 9}
    try:
        return await perform(callers, {**job, "clients": 2, "warm": 0.0, "seconds": 0.05})
    finally:
        await callers.close()


def test_callers_over_http_count_what_was_answered() -> None:
    with _peer() as callers:
        done = asyncio.run(_perform(callers, "here"))
    assert done["failures"] == 0
    assert len(done["microseconds"]) == done["turns"] - 2
    asked = json.loads(base64.b64decode(done["first"]))["asked"]
    assert asked["name"] == ["here"]
    assert 1 <= int(asked["version"][0]) <= 9


def test_a_refusal_is_a_failure_and_no_request() -> None:
    with _peer() as callers:
        done = asyncio.run(_perform(callers, "gone"))
    assert done["failures"] >= 2
    assert done["microseconds"] == []
    assert done["rate"] == 0.0
    assert done["problem"].startswith("404")
