"""What the Trainer tells its workers on other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfuse_trainer.service_settings import TrainerSettings
from perfuse_trainer.serving import told_to_actors


def test_secrets_of_files_are_told_and_those_of_the_server_alone_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (
        ("BLOB_DIRECTORY", "/blobs"),
        ("PACK", "7"),
        ("TOKEN_FILE", "/tokens"),
        ("S3_SECRET_KEY", "of the environment"),
    ):
        monkeypatch.setenv(f"PERFUSE_TRAINER_{name}", value)
    monkeypatch.setenv("PERFUSE_SECRETS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody else's")
    (tmp_path / "perfuse_trainer_database_url").write_text("postgresql://of-the-file")
    (tmp_path / "perfuse_trainer_s3_secret_key").write_text("of the file")
    (tmp_path / "perfuse_trainer_registry_token").write_text("the server's")
    told = told_to_actors(TrainerSettings.load())
    assert told["PERFUSE_TRAINER_DATABASE_URL"] == "postgresql://of-the-file"
    assert told["PERFUSE_TRAINER_S3_SECRET_KEY"] == "of the environment"
    assert (told["PERFUSE_TRAINER_PACK"], told["OTEL_SERVICE_NAME"]) == ("7", "mine")
    assert not {"PERFUSE_TRAINER_REGISTRY_TOKEN", "PERFUSE_TRAINER_TOKEN_FILE"} & told.keys()
    assert not {"PERFUSE_SECRETS_DIRECTORY", "AWS_SECRET_ACCESS_KEY"} & told.keys()
