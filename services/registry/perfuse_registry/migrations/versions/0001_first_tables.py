"""Concepts, versions, aliases, base models, blobs.

Revision ID: 0001
Revises: none
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_MOMENT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "base_models",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("base_model_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("fingerprint", _ID, nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("conditioning_width", sa.Integer(), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("encoders", sa.JSON(), nullable=False),
        sa.Column("covariance_digest", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_models")),
        sa.UniqueConstraint("base_model_id", name=op.f("uq_base_models_base_model_id")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_base_models_fingerprint")),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("touch_time", _MOMENT, nullable=False),
        sa.Column("condemn_time", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("tenant", "digest", name=op.f("pk_blobs")),
    )
    op.create_index(op.f("ix_blobs_condemn_time"), "blobs", ["condemn_time"])

    op.create_table(
        "concepts",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("concept_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("super_category", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("latest_number", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("delete_time", _MOMENT, nullable=True),
        sa.Column("purge_time", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_concepts")),
        sa.UniqueConstraint("tenant", "concept_id", name=op.f("uq_concepts_tenant_concept_id")),
    )
    op.create_index(op.f("ix_concepts_purge_time"), "concepts", ["purge_time"])
    op.create_index(op.f("ix_concepts_tenant_create_time"), "concepts", ["tenant", "create_time"])

    op.create_table(
        "requests",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("method", sa.String(40), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("done_time", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "method", "request_id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_done_time"), "requests", ["done_time"])

    op.create_table(
        "secrets",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "alias_moves",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("concept", sa.BigInteger(), nullable=False),
        sa.Column("alias_id", _ID, nullable=False),
        sa.Column("from_number", sa.BigInteger(), nullable=True),
        sa.Column("to_number", sa.BigInteger(), nullable=True),
        sa.Column("mover", sa.String(), nullable=False),
        sa.Column("move_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["concept"], ["concepts.id"], name=op.f("fk_alias_moves_concept_concepts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_moves")),
    )
    op.create_index(
        op.f("ix_alias_moves_concept_alias_id_id"), "alias_moves", ["concept", "alias_id", "id"]
    )

    op.create_table(
        "blob_leases",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("expire_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "digest"],
            ["blobs.tenant", "blobs.digest"],
            name=op.f("fk_blob_leases_tenant_digest_blobs"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob_leases")),
    )
    op.create_index(op.f("ix_blob_leases_expire_time"), "blob_leases", ["expire_time"])
    op.create_index(op.f("ix_blob_leases_tenant_digest"), "blob_leases", ["tenant", "digest"])

    op.create_table(
        "versions",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("concept", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("base_model", sa.BigInteger(), nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("key_lock", sa.String(), nullable=False),
        sa.Column("placeholder", sa.String(), nullable=False),
        sa.Column("super_category", sa.String(), nullable=False),
        sa.Column("bias", sa.Float(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=False),
        sa.Column("training", sa.JSON(), nullable=False),
        sa.Column("training_run", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["base_model"], ["base_models.id"], name=op.f("fk_versions_base_model_base_models")
        ),
        sa.ForeignKeyConstraint(
            ["concept"], ["concepts.id"], name=op.f("fk_versions_concept_concepts")
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "digest"],
            ["blobs.tenant", "blobs.digest"],
            name=op.f("fk_versions_tenant_digest_blobs"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("concept", "number", name=op.f("uq_versions_concept_number")),
    )
    op.create_index(op.f("ix_versions_base_model"), "versions", ["base_model"])
    op.create_index(op.f("ix_versions_concept_create_time"), "versions", ["concept", "create_time"])
    op.create_index(op.f("ix_versions_tenant_digest"), "versions", ["tenant", "digest"])

    op.create_table(
        "aliases",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("concept", sa.BigInteger(), nullable=False),
        sa.Column("alias_id", _ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["concept", "number"],
            ["versions.concept", "versions.number"],
            name=op.f("fk_aliases_concept_number_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aliases")),
        sa.UniqueConstraint("concept", "alias_id", name=op.f("uq_aliases_concept_alias_id")),
    )
    op.create_index(op.f("ix_aliases_concept_number"), "aliases", ["concept", "number"])


def downgrade() -> None:
    op.drop_index(op.f("ix_aliases_concept_number"), "aliases")

    op.drop_table("aliases")
    op.drop_index(op.f("ix_versions_tenant_digest"), "versions")
    op.drop_index(op.f("ix_versions_concept_create_time"), "versions")
    op.drop_index(op.f("ix_versions_base_model"), "versions")

    op.drop_table("versions")
    op.drop_index(op.f("ix_blob_leases_tenant_digest"), "blob_leases")
    op.drop_index(op.f("ix_blob_leases_expire_time"), "blob_leases")

    op.drop_table("blob_leases")
    op.drop_index(op.f("ix_alias_moves_concept_alias_id_id"), "alias_moves")

    op.drop_table("alias_moves")
    op.drop_table("secrets")
    op.drop_index(op.f("ix_requests_done_time"), "requests")

    op.drop_table("requests")
    op.drop_index(op.f("ix_concepts_tenant_create_time"), "concepts")
    op.drop_index(op.f("ix_concepts_purge_time"), "concepts")

    op.drop_table("concepts")
    op.drop_index(op.f("ix_blobs_condemn_time"), "blobs")

    op.drop_table("blobs")
    op.drop_table("base_models")
