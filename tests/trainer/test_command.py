"""`perfuse-trainer learn` as a person runs it, killed as a machine kills it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bases import WORDS
from PIL import Image

from perfuse.adapter.tensors import Adapter
from perfuse.attach import prepare

STEPS = 40


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


def command(home: Path, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "perfuse_trainer", "learn", str(home / "pictures")),
        *("--base", str(home / "base"), "--super-category", "cat", "--out", str(out)),
        *("--steps", str(STEPS), *more),
    ]


@pytest.mark.timeout(900)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(home: Path) -> None:
    undisturbed, killed = home / "tom.safetensors", home / "again" / "tom.safetensors"
    killed.parent.mkdir()
    subprocess.run(command(home, undisturbed), check=True, timeout=280, capture_output=True)
    checkpoint = home / "checkpoint.safetensors"
    again = command(home, killed, "--checkpoint", str(checkpoint), "--checkpoint-every", "1")
    lot = random.Random(8)
    kills = 0
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 280
        while process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                time.sleep(lot.uniform(0.0, 0.1))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        kills += process.wait(timeout=280) == -signal.SIGKILL
        assert not killed.exists()
    assert kills == 2, "the run ended before it could be killed; make it longer"
    subprocess.run(again, check=True, timeout=280, capture_output=True)
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
    home: Path, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    out = tmp_path / "out" / "tom.safetensors"
    out.parent.mkdir()
    words = [*command(home, out)]
    words[words.index(str(home / "pictures"))] = str(folder)
    result = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("perfuse-trainer: ")
    assert sentence in lines[0]
    assert list(out.parent.iterdir()) == []
