"""A process of callers, each of which sends its next request when its last is answered.

    python -m bench.registry_load '{"kind": "grpc", "target": ..., "token": ..., "clients": 32}'

It reads one job a line from standard input and answers with one line on standard output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from typing import Any

from bench.registry_callers import Callers, GrpcCallers, HttpCallers, Job, Refused


class Tally:
    """What the callers of one job counted."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self.busy = 0.0
        self.failures = 0
        self.problem = ""
        self.first = b""


async def perform(callers: Callers, job: Job) -> dict[str, Any]:
    """One job: `clients` callers for `seconds`, those of `warm` seconds dropped.

    Returns:
        Microseconds of each answered request; requests a second, which for callers that always
        wait is callers divided by the mean time of a turn; this process's CPU seconds a request.
    """
    tally = Tally()
    began = time.perf_counter()
    warm, end = began + job["warm"], began + job["warm"] + job["seconds"]
    spent = time.process_time()
    turns = await asyncio.gather(
        *(_turns(callers, job, client, warm, end, tally) for client in range(job["clients"]))
    )
    spent = time.process_time() - spent
    answered = len(tally.latencies)
    return {
        "microseconds": tally.latencies,
        "rate": job["clients"] * answered / tally.busy if answered else 0.0,
        "client_cpu": spent / max(1, sum(turns)),
        "turns": sum(turns),
        "failures": tally.failures,
        "problem": tally.problem,
        "first": base64.b64encode(tally.first).decode(),
    }


async def _turns(
    callers: Callers, job: Job, client: int, warm: float, end: float, tally: Tally
) -> int:
    requests = callers.requests(job, client)
    turns, counted = 0, False
    while True:
        began = time.perf_counter()
        if began >= end and counted:
            return turns
        request = next(requests)
        sent = time.perf_counter()
        try:
            answer = await callers.call(client, request)
        except Refused as refused:
            tally.failures += 1
            tally.problem = str(refused)
            counted = True
            continue
        done = time.perf_counter()
        turns += 1
        # The first turn may have had to connect.
        if began >= warm and turns > 1:
            counted = True
            tally.latencies.append(round(1e6 * (done - sent)))
            tally.busy += done - began
        tally.first = tally.first or answer


async def _serve(settings: dict[str, Any]) -> None:
    kind = {"grpc": GrpcCallers, "http": HttpCallers}[settings.pop("kind")]
    callers: Callers = kind(**settings)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await perform(callers, json.loads(line))), flush=True)
    await callers.close()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
