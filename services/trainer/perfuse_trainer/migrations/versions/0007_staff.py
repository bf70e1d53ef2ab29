"""How many workers each Trainer has, so that several start no more than the runs need.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "staff",
        sa.Column("trainer", sa.String(36), nullable=False),
        sa.Column("base_model_id", _ID, nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("tell_time", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("trainer", "base_model_id", name=op.f("pk_staff")),
    )


def downgrade() -> None:
    op.drop_table("staff")
