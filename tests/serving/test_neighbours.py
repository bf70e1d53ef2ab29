"""How one service reaches another: never with a caller's token in plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfuse.errors import FailedPrecondition
from perfuse.serving.neighbours import channel_credentials
from serving.authority import Authority


def test_plain_text_stays_on_this_machine() -> None:
    assert channel_credentials("P_", "127.0.0.1:7071", None) is None
    with pytest.raises(FailedPrecondition, match="set P_REGISTRY_CA"):
        channel_credentials("P_", "registry:7071", None)


def test_a_certificate_of_its_own_needs_all_three(tmp_path: Path) -> None:
    Authority().install(tmp_path)
    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    assert channel_credentials("P_", "registry:7071", ca) is not None
    assert channel_credentials("P_", "registry:7071", ca, cert, key) is not None
    wrongs: list[tuple[Any, str]] = [
        ((ca, cert, None), "belong together"),
        ((ca, None, key), "belong together"),
        ((None, cert, key), "set P_REGISTRY_CA"),
        ((tmp_path / "missing.pem", None, None), "missing.pem cannot be read"),
        ((ca, cert, tmp_path / "missing.pem"), "missing.pem cannot be read"),
    ]
    for files, told in wrongs:
        with pytest.raises(FailedPrecondition, match=told):
            channel_credentials("P_", "127.0.0.1:7071", *files)
