"""The process that holds a Ray cluster of several nodes, on one machine, for `ray_cluster`.

It starts a head without CPUs and answers each line of standard input, {"do": "add"} or another
of `Host`'s methods, with one line. The cluster ends with it, even if it is killed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ray.cluster_utils import Cluster

_NODE = {
    "object_store_memory": 80 << 20,
    "include_log_monitor": False,
}


class Host:
    """The cluster, by the lines' words."""

    def __init__(self, home: str) -> None:
        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "no_monitor": True,
                "temp_dir": home,
                **_NODE,
            },
        )
        self._nodes: dict[int, Any] = {}

    def address(self) -> dict[str, Any]:
        (raylet,) = self._cluster.head_node.all_processes["raylet"]
        return {"address": self._cluster.address, "raylet": raylet.process.pid}

    def add(self) -> dict[str, Any]:
        """A new node with one CPU; its raylet is its name."""
        node = self._cluster.add_node(num_cpus=1, **_NODE)
        (raylet,) = node.all_processes["raylet"]
        self._nodes[raylet.process.pid] = node
        return {"raylet": raylet.process.pid}

    def remove(self, raylet: int) -> dict[str, Any]:
        """Clear up behind a node whose raylet died."""
        self._cluster.remove_node(self._nodes.pop(raylet), allow_graceful=False)
        return {}

    def free(self) -> dict[str, Any]:
        """CPUs of nodes that live, those that nobody has, and actors that live or shall."""
        state = self._cluster.global_state
        actors = state.actor_table(None).values()
        return {
            "cpus": state.cluster_resources().get("CPU", 0.0),
            "free": state.available_resources().get("CPU", 0.0),
            "actors": sum(actor["State"] != "DEAD" for actor in actors),
        }

    def close(self) -> dict[str, Any]:
        self._cluster.shutdown()
        return {}


def main() -> None:
    """Answer until standard input ends."""
    answers, out = sys.stdin, os.fdopen(os.dup(1), "w")
    # Whatever Ray prints is no answer.
    os.dup2(2, 1)
    host = Host(sys.argv[1])
    for line in answers:
        order = json.loads(line)
        print(json.dumps(getattr(host, order.pop("do"))(**order)), file=out, flush=True)


if __name__ == "__main__":
    main()
