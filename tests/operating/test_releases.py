"""A release back and forth with data: what both know stays; neither serves the other's tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from registry import samples
from registry.processes import PAIRS, fresh_place, furnish
from sqlalchemy import select
from trainer.workshop import BACKENDS, workshop

from perfuse.adapter import digest
from perfuse.errors import WrongRevision
from perfuse.names import ConceptName
from perfuse.storage.database import Database
from perfuse.storage.requests import Mutation
from perfuse.storage.schema import Schema
from perfuse_registry.registry import Registry
from perfuse_registry.schema import SCHEMA as REGISTRY
from perfuse_registry.tables import ALIASES, CONCEPTS, VERSIONS
from perfuse_trainer.schema import SCHEMA as TRAINER
from perfuse_trainer.tables import IMAGES, RUNS

TOM = ConceptName("acme", "tom")


def before(schema: Schema) -> str:
    """The revision of the release before."""
    known = [each.revision for each in ScriptDirectory(schema._migrations).walk_revisions()]
    return known[1] if len(known) > 1 else "base"


@pytest.mark.parametrize("pair", PAIRS)
def test_the_registry_goes_back_a_release_and_forth_again(pair: str, tmp_path: Path) -> None:
    chosen = {
        CONCEPTS: [CONCEPTS.c.id, CONCEPTS.c.uid, CONCEPTS.c.next_number, CONCEPTS.c.revision],
        VERSIONS: [VERSIONS.c.id, VERSIONS.c.number, VERSIONS.c.digest, VERSIONS.c.create_time],
        ALIASES: [ALIASES.c.id, ALIASES.c.alias_id, ALIASES.c.number, ALIASES.c.revision],
    }

    def rows(database: Database) -> list[list[tuple[object, ...]]]:
        return [
            [tuple(row) for row in database.read(lambda c, k=k: c.execute(select(*k)).all())]
            for k in chosen.values()
        ]

    mutation = Mutation("acme", "tester")
    with fresh_place(pair, tmp_path) as place:
        with place.registry() as registry:
            furnish(registry, "tom", "rex")
            for seed in range(3):
                data = samples.adapter(seed)
                registry.versions.create(mutation, TOM, data, digest(data))
            registry.aliases.create(mutation, TOM.alias("prod"), TOM.version(2))
        database = Database(place.url)
        held = rows(database)
        assert [len(each) for each in held] == [2, 3, 1]
        REGISTRY.migrate(database, before(REGISTRY))
        assert rows(database) == held
        with pytest.raises(WrongRevision, match="perfuse-registry migrate"):
            Registry(database, place.store())
        REGISTRY.migrate(database)
        assert rows(database) == held
        database.close()
        with place.registry() as registry:
            _, data = registry.versions.download("acme", TOM.version("prod"), "")
            assert data == samples.adapter(1)
            data = samples.adapter(9)
            assert registry.versions.create(mutation, TOM, data, digest(data)).number == 4


@pytest.mark.parametrize("dialect", BACKENDS)
def test_the_trainer_goes_back_a_release_and_forth_again(dialect: str, tmp_path: Path) -> None:
    chosen = select(RUNS.c.id, RUNS.c.uid, RUNS.c.settings, RUNS.c.state, RUNS.c.create_time)
    pictures = select(IMAGES.c.id, IMAGES.c.blob)
    with workshop(dialect, tmp_path) as shop:
        for concept in ("tom", "rex"):
            shop.run(concept=concept)

        def rows() -> list[tuple[object, ...]]:
            return [
                tuple(row)
                for query in (chosen, pictures)
                for row in shop.database.read(lambda c, q=query: c.execute(q).all())
            ]

        held = rows()
        assert len(held) == 2 + 6
        TRAINER.migrate(shop.database, before(TRAINER))
        assert rows() == held
        with pytest.raises(WrongRevision, match="perfuse-trainer migrate"):
            shop.trainer.check()
        TRAINER.migrate(shop.database)
        assert rows() == held
        assert len(shop.queue.claim("worker-1", ["tiny"], 2, alone=True)) == 2
