"""Concepts that the Registry says were erased.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "erased_concepts",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("concept_id", _ID, nullable=False),
        sa.Column("tell_time", _MOMENT, nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("confirm_time", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("tenant", "concept_id", name=op.f("pk_erased_concepts")),
    )


def downgrade() -> None:
    op.drop_table("erased_concepts")
