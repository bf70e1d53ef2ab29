"""Grants of concepts to other tenants, and what each concept takes.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "grants",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("concept", sa.BigInteger(), nullable=False),
        sa.Column("grantee", _ID, nullable=False),
        sa.Column("access", sa.String(16), nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["concept"], ["concepts.id"], name="fk_grants_concept_concepts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("concept", "grantee", name=op.f("uq_grants_concept_grantee")),
    )
    op.create_index(op.f("ix_grants_grantee_id"), "grants", ["grantee", "id"])
    op.add_column(
        "concepts", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE concepts SET size_bytes = (SELECT coalesce(sum(versions.size_bytes), 0) "
        "FROM versions WHERE versions.concept = concepts.id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("concepts") as concepts:
        concepts.drop_column("size_bytes")
    op.drop_index(op.f("ix_grants_grantee_id"), table_name="grants")
    op.drop_table("grants")
