"""The Registry's tables: which revision they are at, and how they come to another."""

from __future__ import annotations

from pathlib import Path

from perfuse.storage.database import Database
from perfuse.storage.schema import Schema, shared_key
from perfuse_registry.tables import SECRETS

SCHEMA = Schema(Path(__file__).with_name("migrations"), "perfuse-registry migrate")


def page_token_key(database: Database) -> bytes:
    """The key that signs page tokens, the same for all replicas."""
    return shared_key(database, SECRETS, "page_token_key")


def receipt_key(database: Database) -> bytes:
    """The key that signs receipts of erasures, the same for all replicas."""
    return shared_key(database, SECRETS, "receipt_key")
