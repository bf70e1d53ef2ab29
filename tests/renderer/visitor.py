"""A second front door in a process of its own: joins a cluster, shares its replicas, renders on.

    python visitor.py ADDRESS SETTINGS

prints `begun` with the first step; SETTINGS is a file with a pickled `ReplicaSettings`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import torch
from ray import cloudpickle

from perfuse.attach import unconditional
from perfuse_renderer.cluster import Cluster
from perfuse_renderer.engine.render import Stepped
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.plan_store import PlanStore
from perfuse_renderer.residence import load_base
from perfuse_renderer.serve_backend import ServeBackend
from perfuse_renderer.settings import RendererSettings


async def visit(address: str, file: Path) -> None:
    replica = cloudpickle.loads(file.read_bytes())
    base = load_base(replica.directory, "cpu", replica.dtype)
    nothing = unconditional(base)
    settings = RendererSettings(
        backend="serve", ray_address=address, replicas_min=2, replicas_max=2
    )
    cluster = Cluster(settings)
    handle = cluster.deploy("tiny", replica)
    backend = ServeBackend(handle, PlanStore(torch.float64, 1 << 20), beat=0.5)
    long = Picture(nothing, nothing, 1, 190, 3.0, "ddim", 16, 16)
    async for event in backend.render("acme", [long], deadline=None, preview_every=0):
        if isinstance(event, Stepped) and event.step == 1:
            print("begun", flush=True)
    cluster.close()


if __name__ == "__main__":
    asyncio.run(visit(sys.argv[1], Path(sys.argv[2])))
