"""One platform of real processes for what is planted, for the whole package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from security.planted import Place


@pytest.fixture(scope="package")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A platform in which the owner has secrets everywhere."""
    from security.planted import furnish, place, plant

    with place(tmp_path_factory.mktemp("planted") / "home") as made:
        plant(made)
        furnish(made)
        yield made
