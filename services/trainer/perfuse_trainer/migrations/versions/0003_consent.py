"""Until when a run may learn a likeness.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_runs", sa.Column("consent_until", sa.BigInteger(), nullable=True))
    op.add_column("training_runs", sa.Column("consent_seen", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("training_runs", "consent_seen")
    op.drop_column("training_runs", "consent_until")
