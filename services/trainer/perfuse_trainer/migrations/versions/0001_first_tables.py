"""Image sets, training runs and their events.

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
        "image_sets",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("image_set_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("keep", sa.Boolean(), nullable=False),
        sa.Column("emptied", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("expire_time", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_sets")),
        sa.UniqueConstraint(
            "tenant", "image_set_id", name=op.f("uq_image_sets_tenant_image_set_id")
        ),
    )
    op.create_index(op.f("ix_image_sets_expire_time"), "image_sets", ["expire_time"])
    op.create_index(
        op.f("ix_image_sets_tenant_create_time"), "image_sets", ["tenant", "create_time"]
    )

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
        "training_runs",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("concept_id", _ID, nullable=False),
        sa.Column("image_set_id", _ID, nullable=False),
        sa.Column("image_set", sa.BigInteger(), nullable=True),
        sa.Column("base_model_id", _ID, nullable=False),
        sa.Column("super_category", sa.String(), nullable=False),
        sa.Column("key_lock", sa.String(16), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(64), nullable=True),
        sa.Column("lease_time", _MOMENT, nullable=True),
        sa.Column("claim_time", _MOMENT, nullable=True),
        sa.Column("checkpoint_blob", _ID, nullable=True),
        sa.Column("checkpoint_step", sa.Integer(), nullable=False),
        sa.Column("finish_time", _MOMENT, nullable=True),
        sa.Column("adapter_blob", _ID, nullable=True),
        sa.Column("digest", _ID, nullable=True),
        sa.Column("version_number", sa.BigInteger(), nullable=True),
        sa.Column("error_reason", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("next_sequence", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("update_time", _MOMENT, nullable=False),
        sa.Column("start_time", _MOMENT, nullable=True),
        sa.Column("end_time", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("tenant", "run_id", name=op.f("uq_training_runs_tenant_run_id")),
    )
    op.create_index(op.f("ix_training_runs_adapter_blob"), "training_runs", ["adapter_blob"])
    op.create_index(op.f("ix_training_runs_checkpoint_blob"), "training_runs", ["checkpoint_blob"])
    op.create_index(op.f("ix_training_runs_image_set"), "training_runs", ["image_set"])
    op.create_index(
        op.f("ix_training_runs_state_lease_time"), "training_runs", ["state", "lease_time"]
    )
    op.create_index(
        op.f("ix_training_runs_tenant_claim_time"), "training_runs", ["tenant", "claim_time"]
    )
    op.create_index(
        op.f("ix_training_runs_tenant_create_time"), "training_runs", ["tenant", "create_time"]
    )

    op.create_table(
        "images",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("image_set", sa.BigInteger(), nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("file_name", sa.String(255), nullable=False),
        sa.Column("digest", _ID, nullable=False),
        sa.Column("mask_digest", _ID, nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("blob", _ID, nullable=False),
        sa.Column("mask_blob", _ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["image_set"], ["image_sets.id"], name=op.f("fk_images_image_set_image_sets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("image_set", "file_name", name=op.f("uq_images_image_set_file_name")),
    )
    op.create_index(op.f("ix_images_blob"), "images", ["blob"])
    op.create_index(op.f("ix_images_mask_blob"), "images", ["mask_blob"])

    op.create_table(
        "run_events",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_time", _MOMENT, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("blob", _ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["run"], ["training_runs.id"], name=op.f("fk_run_events_run_training_runs")
        ),
        sa.PrimaryKeyConstraint("run", "sequence", name=op.f("pk_run_events")),
    )
    op.create_index(op.f("ix_run_events_blob"), "run_events", ["blob"])


def downgrade() -> None:
    for table in ("run_events", "images", "training_runs", "secrets", "requests", "image_sets"):
        op.drop_table(table)
