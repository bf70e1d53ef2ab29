"""Likenesses, and consents to their use.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from perfuse.storage.append_only import protect, release

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()
_TABLES = ("consents", "consent_revocations")


def upgrade() -> None:
    op.add_column(
        "concepts", sa.Column("likeness", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_table(
        "consents",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("concept", sa.BigInteger(), nullable=False),
        sa.Column("consent_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("giver", sa.String(), nullable=False),
        sa.Column("train", sa.Boolean(), nullable=False),
        sa.Column("render", sa.Boolean(), nullable=False),
        sa.Column("start_time", _MOMENT, nullable=False),
        sa.Column("expire_time", _MOMENT, nullable=False),
        sa.Column("recorder", sa.String(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["concept"], ["concepts.id"], name=op.f("fk_consents_concept_concepts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
        sa.UniqueConstraint("concept", "consent_id", name=op.f("uq_consents_concept_consent_id")),
    )
    op.create_table(
        "consent_revocations",
        sa.Column("consent", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revoker", sa.String(), nullable=False),
        sa.Column("revoke_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["consent"], ["consents.id"], name=op.f("fk_consent_revocations_consent_consents")
        ),
        sa.PrimaryKeyConstraint("consent", name=op.f("pk_consent_revocations")),
    )
    for table in _TABLES:
        # Purges and erasures take the whole history, and nothing else takes any of it.
        for statement in protect(op.get_bind().dialect.name, table):
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
        for statement in release(op.get_bind().dialect.name, table):
            op.get_bind().exec_driver_sql(statement)
    op.drop_column("concepts", "likeness")
