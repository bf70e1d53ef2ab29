"""Alembic's way in: always by `perfuse_trainer.schema`, which brings the connection."""

from __future__ import annotations

from alembic import context

from perfuse_trainer.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=False,
)
context.run_migrations()
