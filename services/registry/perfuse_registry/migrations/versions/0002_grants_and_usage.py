"""Grants of concepts to other tenants, and what each tenant keeps.

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
    op.create_table(
        "tenant_usage",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("concept_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenant_usage")),
    )
    op.execute(
        "INSERT INTO tenant_usage (tenant, concept_count, size_bytes) "
        "SELECT tenant, count(*) - count(delete_time), "
        "(SELECT coalesce(sum(size_bytes), 0) FROM versions WHERE versions.tenant = c.tenant) "
        "FROM concepts AS c GROUP BY tenant"
    )


def downgrade() -> None:
    op.drop_table("tenant_usage")
    op.drop_index(op.f("ix_grants_grantee_id"), table_name="grants")
    op.drop_table("grants")
