"""How keys are locked, by name: what services and files say without computing anything."""

from __future__ import annotations

from enum import StrEnum


class KeyLock(StrEnum):
    """The three ways to treat a concept's keys, see `perfuse.method.key_lock`; value is name."""

    LOCAL = "LOCAL"
    GLOBAL = "GLOBAL"
    TRAINED_K = "TRAINED_K"
