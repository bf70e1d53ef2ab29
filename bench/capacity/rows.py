"""Bytes of a concept in the Registry's database: measured, in a PostgreSQL server from pip.

Rows are as the Registry writes them: a concept, its versions with a blob and a remembered request
each, an alias and its first move. Bytes are those of tables with their indexes.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import create_engine, insert, text

from bench.registry_servers import postgres
from perfuse.storage.database import Database
from perfuse_registry import tables
from perfuse_registry.schema import SCHEMA

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def measure(concepts: int = 20_000, versions: int = 2) -> dict[str, Any]:
    """Fill a database, and weigh it.

    Args:
        concepts: to fill in.
        versions: of each.
    """
    with postgres() as server:
        url = server.create("catalogue").replace("postgresql://", "postgresql+psycopg://", 1)
        database = Database(url)
        SCHEMA.migrate(database)
        database.close()
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(insert(tables.BASE_MODELS), [_base_model()])
            for start in range(0, concepts, 2000):
                batch = range(start, min(start + 2000, concepts))
                for table, rows in _rows(batch, versions).items():
                    connection.execute(insert(tables.Base.metadata.tables[table]), rows)
        found: dict[str, float] = {}
        with engine.connect() as connection:
            for name in ("concepts", "versions", "aliases", "alias_moves", "blobs", "requests"):
                size = connection.execute(
                    text("SELECT pg_total_relation_size(:name)"), {"name": name}
                ).scalar_one()
                found[name] = round(size / concepts, 1)
        engine.dispose()
    return {
        "concepts": concepts,
        "versions": versions,
        "bytes_per_concept": found,
        "row_bytes": round(sum(found.values()), 1),
    }


def _base_model() -> dict[str, Any]:
    return {
        "id": 1,
        "base_model_id": "base",
        "uid": _uid("base"),
        "display_name": "",
        "fingerprint": "f" * 64,
        "architecture": "stable-diffusion-1",
        "conditioning_width": 768,
        "layers": [],
        "encoders": [],
        "covariance_digest": "",
        "labels": {},
        "revision": 1,
        "create_time": _MOMENT,
        "update_time": _MOMENT,
    }


def _uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _rows(batch: range, versions: int) -> dict[str, list[dict[str, Any]]]:
    moments = {"create_time": _MOMENT, "update_time": _MOMENT}
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("concepts", "blobs", "versions", "aliases", "alias_moves", "requests")
    }
    for index in batch:
        key, tenant = index + 1, f"tenant-{index // 10}"
        found["concepts"].append(
            {
                "id": key,
                "tenant": tenant,
                "concept_id": f"concept-{index}",
                "uid": _uid(f"c{index}"),
                "display_name": f"My cat {index}",
                "super_category": "cat",
                "description": "",
                "labels": {},
                "revision": 2,
                "next_number": versions + 1,
                "latest_number": versions,
                **moments,
            }
        )
        alias = {"concept": key, "alias_id": "prod"}
        found["aliases"].append(
            {**alias, "number": versions, "uid": _uid(f"a{index}"), "revision": 1, **moments}
        )
        found["alias_moves"].append(
            {**alias, "to_number": versions, "mover": "someone", "move_time": _MOMENT}
        )
        for number in range(1, versions + 1):
            digest = "sha256:" + hashlib.sha256(f"{index}/{number}".encode()).hexdigest()
            blob = {"tenant": tenant, "digest": digest, "size_bytes": 30640}
            found["blobs"].append({**blob, "touch_time": _MOMENT})
            found["versions"].append(
                {
                    **blob,
                    "concept": key,
                    "number": number,
                    "base_model": 1,
                    "uid": _uid(f"v{index}/{number}"),
                    "key_lock": "LOCAL",
                    "placeholder": "it",
                    "super_category": "cat",
                    "bias": 0.7,
                    "temperature": 0.15,
                    "training": {"steps": "400", "images": "5"},
                    "description": "",
                    "labels": {},
                    "training_run": f"tenants/{tenant}/trainingRuns/{_uid(f'r{index}')}",
                    "revision": 1,
                    **moments,
                }
            )
            found["requests"].append(
                {
                    "tenant": tenant,
                    "method": "CreateVersion",
                    "done_time": _MOMENT,
                    "request_id": _uid(f"q{index}/{number}"),
                    "fingerprint": "e" * 64,
                    "answer": f"tenants/{tenant}/concepts/concept-{index}/versions/{number}",
                }
            )
    return found
