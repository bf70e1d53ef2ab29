"""What the servers hold before they are measured, alike in ours and in MLflow.

Concepts (in MLflow: registered models) of 100 to 100,000 versions, the largest with an alias; one
whose versions were all uploaded, for downloads; and one for every caller that creates. The first
version of each comes over the API; of the large ones the others are copies of it made by SQL.

An operation is called alike on both, but what it does for a new version differs. "create": ours
takes 30 KB, judges and digests them, stores them durably and remembers the request for its
repetition; MLflow writes a row with a URI. "publish": ours does the same; MLflow takes the 30 KB
first, by a PUT to its artifact proxy, and keeps them in a folder as they are. "download": ours
gives the bytes, verified; MLflow is asked where they are and then for them, two requests.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, create_engine, make_url, text

from bench import registry_sample as sample
from bench.registry_callers import Job, artifact_path, artifact_uri
from bench.registry_servers import TENANT, Mlflow, Registry
from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire

UPLOADED = 32
PAGE = 50
ALIAS = "prod"
AGAIN = "download again"

_COPIES = """
WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < :size)
INSERT INTO {table} ({number}, {others}) SELECT n, {others} FROM {table}, numbers WHERE {chosen}
"""


def fill_registry(ours: Registry, sizes: Sequence[int], clients: int) -> dict[str, Job]:
    """Jobs by operation, for `registry_load`."""
    data = sample.adapter()
    base = wire.BaseModel(
        fingerprint=sample.FINGERPRINT,
        architecture=sample.ARCHITECTURE,
        conditioning_width=sample.WIDTH,
        layers=[wire.Layer(name=each.name, width=each.width) for each in sample.LAYERS],
        encoders=[wire.Encoder(name=each.name, width=each.width) for each in sample.ENCODERS],
    )
    kind = wire.Concept(super_category=sample.SUPER_CATEGORY)
    with ours.stub() as stub:

        def concept(name: str) -> str:
            request = wire.CreateConceptRequest(
                parent=f"tenants/{TENANT}", concept_id=name, concept=kind
            )
            return str(stub.CreateConcept(request, metadata=ours.metadata).name)

        def upload(parent: str, number: int) -> None:
            file = sample.altered(data, 0, 0, number)
            request = wire.CreateVersionRequest(parent=parent, adapter=file, digest=digest(file))
            stub.CreateVersion(request, metadata=ours.metadata)

        stub.CreateBaseModel(
            wire.CreateBaseModelRequest(base_model_id="base", base_model=base),
            metadata=ours.metadata,
        )
        for client in range(clients):
            concept(f"new-{client}")
        uploaded = concept("uploaded")
        for number in range(UPLOADED):
            upload(uploaded, number)
        large = [concept(f"large-{size}") for size in sizes]
        for name in large:
            upload(name, UPLOADED)
        _multiply_ours(ours.database_url, sizes)
        alias = wire.Alias(version=f"{large[-1]}/versions/{sizes[-1] // 2}")
        stub.CreateAlias(
            wire.CreateAliasRequest(parent=large[-1], alias_id=ALIAS, alias=alias),
            metadata=ours.metadata,
        )
        tokens = [
            _token_of_ours(ours, stub, name, size // 2)
            for name, size in zip(large, sizes, strict=True)
        ]
    new = {"concept": f"tenants/{TENANT}/concepts/new", "adapter": base64.b64encode(data).decode()}
    jobs: dict[str, Job] = {
        "get": {"operation": "get", "concept": large[-1], "versions": sizes[-1]},
        "alias": {"operation": "get", "concept": large[-1], "alias": ALIAS},
        "download": {"operation": "download", "concept": uploaded, "versions": UPLOADED},
        "create": {"operation": "create", **new},
        "publish": {"operation": "publish", **new},
    }
    for name, size, token in zip(large, sizes, tokens, strict=True):
        page = {"operation": "list", "concept": name, "page_size": PAGE}
        jobs[f"list {size}"] = {**page, "page_token": ""}
        jobs[f"middle {size}"] = {**page, "page_token": token}
    return jobs


def fill_mlflow(theirs: Mlflow, sizes: Sequence[int], clients: int) -> dict[str, Job]:
    """Jobs by operation, for `registry_load`."""
    data = sample.adapter()
    large = [f"large-{size}" for size in sizes]
    for name in ["uploaded", *large, *(f"new-{client}" for client in range(clients))]:
        theirs.call("registered-models/create", {"name": name})
    for name in large:
        theirs.call("model-versions/create", {"name": name, "source": artifact_uri(name)})
    for number in range(1, UPLOADED + 1):
        path = artifact_path("uploaded", number)
        theirs.put(path, sample.altered(data, 0, 0, number))
        theirs.call("model-versions/create", {"name": "uploaded", "source": artifact_uri(path)})
    engine = _engine(theirs.database_url)
    with engine.begin() as connection:
        for name, size in zip(large, sizes, strict=True):
            _copy(connection, "model_versions", "version", f"name = '{name}'", size)
    _settle(engine, ("model_versions", "registered_models"))
    theirs.call(
        "registered-models/alias",
        {"name": large[-1], "alias": ALIAS, "version": str(sizes[-1] // 2)},
    )
    jobs: dict[str, Job] = {
        "get": {"operation": "get", "model": large[-1], "versions": sizes[-1]},
        "alias": {"operation": "get", "model": large[-1], "alias": ALIAS},
        "download": {
            "operation": "download",
            "model": "uploaded",
            "versions": UPLOADED,
            "bytes": len(data),
        },
        "create": {"operation": "create", "model": "new"},
        "publish": {
            "operation": "publish",
            "model": "new",
            "adapter": base64.b64encode(data).decode(),
        },
    }
    jobs[AGAIN] = jobs["download"]
    for name, size in zip(large, sizes, strict=True):
        page = {"operation": "list", "model": name, "page_size": PAGE}
        jobs[f"list {size}"] = {**page, "page_token": ""}
        jobs[f"middle {size}"] = {**page, "page_token": _token_of_theirs(size // 2)}
    return jobs


def holds(job: Job, answer: bytes) -> bool:
    """Whether an answer to a job of either is what was asked for."""
    if "model" in job:
        if job["operation"] == "download":
            return len(answer) == int(job["bytes"])
        said = json.loads(answer)
        if job["operation"] == "list":
            return len(said["model_versions"]) == PAGE
        return str(said["model_version"]["name"]).startswith(job["model"])
    if job["operation"] == "list":
        return len(wire.ListVersionsResponse.FromString(answer).versions) == PAGE
    if job["operation"] == "download":
        given = wire.DownloadAdapterResponse.FromString(answer)
        return bool(digest(given.adapter) == given.version.digest)
    return str(wire.Version.FromString(answer).name).startswith(job["concept"])


def _multiply_ours(url: str, sizes: Sequence[int]) -> None:
    engine = _engine(url)
    with engine.begin() as connection:
        for size in sizes:
            chosen = f"concept = (SELECT id FROM concepts WHERE concept_id = 'large-{size}')"
            _copy(connection, "versions", "number", chosen, size)
            connection.execute(
                text(
                    "UPDATE concepts SET next_number = :size + 1, latest_number = :size "
                    "WHERE concept_id = :name"
                ),
                {"size": size, "name": f"large-{size}"},
            )
    _settle(engine, ("versions", "concepts"))


def _copy(connection: Any, table: str, number: str, chosen: str, size: int) -> None:
    """Give the one chosen version its successors up to `size`."""
    columns = connection.execute(text(f"SELECT * FROM {table} LIMIT 0")).keys()
    others = ", ".join(f'"{name}"' for name in columns if name not in (number, "id"))
    statement = _COPIES.format(table=table, number=number, others=others, chosen=chosen)
    connection.execute(text(statement), {"size": size})


def _settle(engine: Engine, tables: Sequence[str]) -> None:
    """Have the database look at what was added now, and not while it is measured."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            vacuum = "VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"
            connection.execute(text(f"{vacuum} {table}"))
        if engine.dialect.name == "postgresql":
            connection.execute(text("CHECKPOINT"))
    engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed)


def _token_of_ours(ours: Registry, stub: Any, parent: str, shown: int) -> str:
    token = ""
    while shown > 0:
        request = wire.ListVersionsRequest(
            parent=parent, page_size=min(shown, 1000), page_token=token
        )
        token = stub.ListVersions(request, metadata=ours.metadata).next_page_token
        shown -= 1000
    return token


def _token_of_theirs(shown: int) -> str:
    """As MLflow makes it, which says no more than how many versions to skip."""
    return base64.b64encode(json.dumps({"offset": shown}).encode()).decode()
