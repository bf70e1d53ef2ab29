"""`perfuse share` between two tenants of one platform, up to the picture and back to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from platform_up import Platform

from perfuse.client import Client, Connection, TrainingSettings
from perfuse.errors import NotFound, PermissionDenied
from perfuse.serving.tokens import mint
from perfuse_toybox.concepts import TOM

from .shell import Shell


@pytest.fixture(scope="module")
def guest(platform: Platform) -> Connection:
    """A tenant that is new here, as its admin."""
    tenant = f"guest-{uuid4().hex[:8]}"
    token = mint(platform.home / "tokens", tenant, "gina", ["admin"])
    return replace(platform.connection, tenant=tenant, token=token)


@pytest.fixture(scope="module")
def tom(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a concept with one version."""
    folder, concept = tmp_path_factory.mktemp("pictures"), f"tom-{uuid4().hex[:8]}"
    TOM.write_pictures(folder)
    with Client(platform.connection) as client:
        run = client.train(
            concept, [folder], super_category="cat", settings=TrainingSettings(steps=2, batch=2)
        )
        client.training_runs.wait(run.name)
    return concept


def test_a_concept_is_shared_rendered_with_and_taken_back(
    platform: Platform,
    guest: Connection,
    tom: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner = platform.connection.tenant
    prompt = f"a photo of <{owner}/{tom}>"
    ours = Shell(platform.connection, monkeypatch, capsys)
    assert f"perfuse share grant {tom}" in ours("share", "list", tom).err
    granted = ours("share", "grant", tom, guest.tenant)
    assert granted.code == 0
    assert granted.out == (
        f"{guest.tenant} may render {tom}, and names it <{owner}/{tom}> in prompts\n"
    )
    assert ours("share", "grant", tom, guest.tenant, "--access", "read").code == 1
    assert guest.tenant in ours("share", "list", tom).out
    listed = ours("share", "list", tom, "--json").json
    assert [each["access"] for each in listed] == ["RENDER"]

    theirs = Shell(guest, monkeypatch, capsys)
    assert f"<{owner}/{tom}>" in theirs("share", "list").out
    picture = theirs("render", prompt, "--steps", "2", "--seed", "1", "-o", str(tmp_path / "a.png"))
    assert picture.code == 0, picture.err
    assert (tmp_path / "a.png").stat().st_size > 100
    with Client(guest) as client:
        name = f"tenants/{owner}/concepts/{tom}/versions/1"
        assert client.versions.get(name).number == 1
        with pytest.raises(PermissionDenied, match="for rendering alone"):
            client.versions.download(name)
        assert {each.quota for each in client.usage.storage()} == {"concepts", "bytes"}
        assert {each.quota for each in client.usage.training()} == {"runs_queued", "runs_running"}
        rates = {each.quota: each.used for each in client.renderer.status().quotas}
        assert rates["images_per_minute"] == 1
        assert rates["step_seconds_per_minute"] > 0

        ours = Shell(platform.connection, monkeypatch, capsys)
        assert ours("share", "revoke", tom, guest.tenant).code == 0
        assert ours("share", "revoke", tom, guest.tenant).code == 3
        assert ours("share", "list", tom, "--json").json == []
        with pytest.raises(NotFound):
            client.versions.get(name)
        assert not list(client.grants.received())
