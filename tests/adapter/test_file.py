"""Adapters on disk: whole or not at all, and nothing read that is not a file of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapter.adapters import adapter
from adapter.samples import file_bytes, metadata, sd15
from perfuse.adapter import errors, limits, read_header
from perfuse.adapter.tensors import Adapter
from perfuse.errors import NotFound


class TestWriting:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        made = adapter(metadata())
        path = tmp_path / "tom.safetensors"
        assert made.write(path) == made.digest
        assert Adapter.read(path).to_bytes() == path.read_bytes() == made.to_bytes()
        assert os.listdir(tmp_path) == ["tom.safetensors"]

    def test_an_older_file_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "tom.safetensors"
        adapter(sd15(), seed=1).write(path)
        made = adapter(metadata(), seed=2)
        made.write(path)
        assert Adapter.read(path).digest == made.digest

    def test_an_adapter_that_cannot_be_written_leaves_the_older_file(self, tmp_path: Path) -> None:
        path = tmp_path / "tom.safetensors"
        good = adapter(metadata())
        good.write(path)
        bad = adapter(metadata())
        bad.value_output[0] = torch.nan
        with pytest.raises(errors.NonFiniteTensor):
            bad.write(path)
        assert path.read_bytes() == good.to_bytes()
        assert os.listdir(tmp_path) == ["tom.safetensors"]

    def test_a_disk_that_fails_half_way_leaves_the_older_file_and_no_draft(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "tom.safetensors"
        old = file_bytes(metadata())
        path.write_bytes(old)
        # The system itself stops the write after 4 KiB, as a full disk would.
        code = (
            "import resource, signal, sys\n"
            "from pathlib import Path\n"
            "from perfuse.adapter.file import write_atomically\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "try: write_atomically(Path(sys.argv[1]), bytes(30_000))\n"
            "except OSError as error: print(error.errno)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip().isdigit()
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["tom.safetensors"]

    def test_a_directory_in_the_way_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "tom").mkdir()
        with pytest.raises(OSError, match="tom"):
            adapter(metadata()).write(tmp_path / "tom")
        assert os.listdir(tmp_path) == ["tom"]


@pytest.mark.parametrize("read", [read_header, Adapter.read])
class TestReading:
    def test_nothing_there(self, read: object, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no adapter file"):
            read(tmp_path / "none.safetensors")

    def test_a_directory(self, read: object, tmp_path: Path) -> None:
        with pytest.raises(errors.NotAFile):
            read(tmp_path)

    def test_a_pipe_is_not_waited_for(self, read: object, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(errors.NotAFile):
            read(tmp_path / "pipe")

    def test_an_endless_device(self, read: object) -> None:
        with pytest.raises(errors.NotAFile):
            read(Path("/dev/zero"))

    def test_a_large_file_is_refused_by_its_size(self, read: object, tmp_path: Path) -> None:
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.truncate(limits.MAX_FILE_BYTES + 1)
        with pytest.raises(errors.FileTooLarge):
            read(path)
