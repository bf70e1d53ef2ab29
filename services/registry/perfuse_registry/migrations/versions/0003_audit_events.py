"""The record of who did what, append-only.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from perfuse.storage.append_only import protect, release

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("event_time", _MOMENT, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("rpc", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_tenant_id"), "audit_events", ["tenant", "id"])
    for statement in protect(op.get_bind().dialect.name, "audit_events", "event_time"):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.drop_table("audit_events")
    for statement in release(op.get_bind().dialect.name, "audit_events"):
        op.get_bind().exec_driver_sql(statement)
