"""Erasures: what is left of concepts that were erased.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.add_column("concepts", sa.Column("erase_time", _MOMENT, nullable=True))
    op.create_table(
        "erasures",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("concept_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("eraser", sa.String(), nullable=False),
        sa.Column("erase_time", _MOMENT, nullable=False),
        sa.Column("version_count", sa.Integer(), nullable=False),
        sa.Column("alias_count", sa.Integer(), nullable=False),
        sa.Column("grant_count", sa.Integer(), nullable=False),
        sa.Column("consent_count", sa.Integer(), nullable=False),
        sa.Column("settle_time", _MOMENT, nullable=True),
        sa.Column("trainer", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("trainer_time", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("tenant", "concept_id", name=op.f("uq_erasures_tenant_concept_id")),
    )
    op.create_index(op.f("ix_erasures_settle_time"), "erasures", ["settle_time"])
    op.create_index(op.f("ix_erasures_trainer_time"), "erasures", ["trainer_time"])
    op.create_table(
        "erased_adapters",
        sa.Column("erasure", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("holder_count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["erasure"], ["erasures.id"], name=op.f("fk_erased_adapters_erasure_erasures")
        ),
        sa.PrimaryKeyConstraint("erasure", "digest", name=op.f("pk_erased_adapters")),
    )


def downgrade() -> None:
    op.drop_table("erased_adapters")
    op.drop_table("erasures")
    op.drop_column("concepts", "erase_time")
