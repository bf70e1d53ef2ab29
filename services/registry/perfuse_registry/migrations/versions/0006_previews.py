"""Previews and curves of versions.

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


def upgrade() -> None:
    op.add_column("versions", sa.Column("curve", sa.JSON(none_as_null=True), nullable=True))
    op.add_column(
        "versions",
        sa.Column("attachment_bytes", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.add_column(
        "erased_adapters",
        sa.Column("preview", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "previews",
        sa.Column("concept", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("caption", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["concept", "number"],
            ["versions.concept", "versions.number"],
            name=op.f("fk_previews_concept_number_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "digest"],
            ["blobs.tenant", "blobs.digest"],
            name=op.f("fk_previews_tenant_digest_blobs"),
        ),
        sa.PrimaryKeyConstraint("concept", "number", "position", name=op.f("pk_previews")),
    )
    op.create_index(op.f("ix_previews_tenant_digest"), "previews", ["tenant", "digest"])


def downgrade() -> None:
    op.drop_table("previews")
    op.drop_column("erased_adapters", "preview")
    op.drop_column("versions", "attachment_bytes")
    op.drop_column("versions", "curve")
