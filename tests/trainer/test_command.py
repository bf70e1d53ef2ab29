"""`perfuse-trainer learn` as a person runs it, killed as a machine kills it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bases import WORDS
from PIL import Image

from perfuse.adapter.tensors import Adapter
from perfuse.attach import prepare
from trainer.forge import Forge

STEPS = 20


@pytest.fixture(scope="module")
def home(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared tiny base and a folder of pictures."""
    home = tmp_path_factory.mktemp("command")
    base = home / "base"
    shutil.copytree(tiny_sd15_dir, base)
    lot = random.Random(5)
    captions = home / "captions.txt"
    captions.write_text(
        "".join(" ".join(lot.choices(WORDS, k=10)) + "\n" for _ in range(60)), encoding="utf-8"
    )
    prepare(base, captions, ridge=1e-3)
    (home / "pictures").mkdir()
    generator = torch.Generator().manual_seed(1)
    for index in range(3):
        pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(home / "pictures" / f"{index}.png")
    return home


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    """Commands that begin at once; one in a process of its own begins with ten seconds' imports."""
    made = Forge("trainer.learn_forge")
    yield made
    made.close()


def words(home: Path, out: Path, *more: str, pictures: Path | None = None) -> list[str]:
    return [
        *("learn", str(pictures or home / "pictures")),
        *("--base", str(home / "base"), "--super-category", "cat", "--out", str(out)),
        *("--steps", str(STEPS), *more),
    ]


@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(home: Path, forge: Forge) -> None:
    undisturbed, killed = home / "tom.safetensors", home / "again" / "tom.safetensors"
    killed.parent.mkdir()
    command = [sys.executable, "-m", "perfuse_trainer", *words(home, undisturbed)]
    subprocess.run(command, check=True, timeout=280, capture_output=True)
    checkpoint, log = home / "checkpoint.safetensors", str(home / "log")
    again = words(home, killed, "--checkpoint", str(checkpoint), "--checkpoint-every", "1")
    lot = random.Random(8)
    kills = 0
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        pid = forge.fork(words=again, log=log)
        deadline = time.monotonic() + 280
        while forge.status(pid) is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                time.sleep(lot.uniform(0.0, 0.1))
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        kills += forge.wait(pid, 280) == -signal.SIGKILL
        assert not killed.exists()
    assert kills == 2, "the run ended before it could be killed; make it longer"
    assert forge.wait(forge.fork(words=again, log=log), 280) == 0, Path(log).read_text()
    assert killed.read_bytes() == undisturbed.read_bytes()
    assert Adapter.read(killed).metadata.placeholder == "tom"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "no picture"),
        ({"a.png": b"not a picture"}, "a.png"),
        ({"notes.txt": b"hello"}, "notes.txt"),
    ],
    ids=["empty", "corrupt", "text"],
)
def test_a_bad_folder_gives_one_sentence_and_nothing_half_written(
    home: Path, forge: Forge, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    out = tmp_path / "out" / "tom.safetensors"
    out.parent.mkdir()
    log = tmp_path / "log"
    pid = forge.fork(words=words(home, out, pictures=folder), log=str(log))
    assert forge.wait(pid, 280) == 1
    lines = log.read_text().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("perfuse-trainer: ")
    assert sentence in lines[0]
    assert list(out.parent.iterdir()) == []
