"""What all tables of the Registry share."""

from __future__ import annotations

from sqlalchemy import MetaData
from sqlmodel import SQLModel

from perfuse.storage.columns import CONVENTION


class Base(SQLModel):
    """What all tables share."""

    metadata = MetaData(naming_convention=CONVENTION)
