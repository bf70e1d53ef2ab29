"""The span that asked for a run, so that what becomes of it is in the same trace.

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


def upgrade() -> None:
    op.add_column("training_runs", sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    # A run that goes on under the release before is in no trace; nothing else is lost.
    op.drop_column("training_runs", "traceparent")
