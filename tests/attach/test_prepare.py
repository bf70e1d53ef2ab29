"""Preparing a base model: the right mean, the same bytes after a kill, and words when refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bases import WORDS

from perfuse.attach import BaseModel, encode, plan, prepare
from perfuse.attach.covariance_asset import FILE
from perfuse.attach.prepare import STATE
from perfuse.errors import (
    BaseModelMismatch,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SingularCovariance,
)


def write_captions(path: Path, count: int, seed: int = 0) -> Path:
    chosen = random.Random(seed)
    lines = [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 9))) for _ in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def home(tiny_sd15_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sd15_dir, tmp_path / "base"))


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return write_captions(tmp_path / "captions.txt", 120)


@pytest.mark.parametrize("positions", ["words", "all"])
def test_is_the_mean_over_the_positions_that_count(
    home: Path, tiny_sd15: BaseModel, tmp_path: Path, positions: str
) -> None:
    path = write_captions(tmp_path / "captions.txt", 60)
    too_long = " ".join(["cat"] * 90)
    # Angle brackets, control words and length are a caption's own affair.
    odd = ["<3 cats & <b>dogs</b>", "a <|endoftext|> cat", "  ", too_long, "ein Café im Schnee"]
    path.write_text(path.read_text() + "\n\n".join(odd), encoding="utf-8")
    asset = prepare(home, path, positions=positions, batch=7)
    expected, count = np.zeros((32, 32)), 0
    for line in path.read_text(encoding="utf-8").replace("<|endoftext|>", "").splitlines():
        if not line.strip():
            continue
        tokenizer = tiny_sd15.encoders[0].tokenizer
        row = tokenizer(line, padding="max_length", max_length=77, truncation=True)
        with torch.no_grad():
            output = tiny_sd15.encoders[0].module(torch.tensor([row.input_ids]))[0][0]
        kept = output[1 : sum(row.attention_mask)] if positions == "words" else output
        expected += kept.double().numpy().T @ kept.double().numpy()
        count += len(kept)
    assert asset.captions == 64
    assert asset.covariance.count == count
    np.testing.assert_allclose(asset.covariance.matrix.numpy(), expected / count, atol=1e-5)


def test_is_found_and_used_by_the_base_model(home: Path, captions: Path) -> None:
    reports: list[tuple[int, int]] = []
    asset = prepare(
        home, captions, ridge=1e-3, batch=50, progress=lambda done, all: reports.append((done, all))
    )
    assert reports == [(50, 120), (100, 120), (120, 120)]
    assert not (home / STATE).exists()
    base = BaseModel.load(home)
    assert base.covariance is not None
    assert base.covariance.digest == asset.digest
    assert (base.covariance.ridge, base.covariance.positions) == (1e-3, "words")
    matrix = asset.covariance.matrix
    ridged = matrix + 1e-3 * matrix.trace() / 32 * torch.eye(32, dtype=torch.float64)
    product = base.inverse_covariance.double() @ ridged
    torch.testing.assert_close(product, torch.eye(32, dtype=torch.float64), atol=1e-3, rtol=0)
    assert base.inverse_covariance is base.inverse_covariance
    encoding = encode(base, "a cat")
    assert encoding.encodings.shape == (1, 77, 32)


def test_stopped_and_run_again_gives_the_same_bytes(home: Path, captions: Path) -> None:
    prepare(home, captions, batch=16)
    whole = (home / FILE).read_bytes()
    (home / FILE).unlink()
    for stop in (32, 64, 64, 112):

        def interrupt(done: int, _: int, stop: int = stop) -> None:
            if done >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(home, captions, batch=16, progress=interrupt, checkpoint_seconds=0)
        assert (home / STATE).exists()
    seen: list[int] = []
    prepare(home, captions, batch=16, progress=lambda done, _: seen.append(done))
    assert seen == [120]
    assert (home / FILE).read_bytes() == whole


def test_killed_and_run_again_gives_the_same_bytes(
    home: Path, tiny_sd15_dir: Path, captions: Path, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        "from perfuse.attach import prepare\n"
        "prepare(sys.argv[1], sys.argv[2], batch=16, checkpoint_seconds=0, progress=lambda done, _:"
        " done >= 48 and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    arguments = [sys.executable, "-c", script, str(home), str(captions)]
    # As many threads as here: sums in another order are other bytes.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        arguments, capture_output=True, check=False, timeout=280, env=environment
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (home / FILE).exists()
    seen: list[int] = []
    prepare(home, captions, batch=16, progress=lambda done, _: seen.append(done))
    assert seen[0] == 64
    fresh = Path(shutil.copytree(tiny_sd15_dir, tmp_path / "fresh"))
    prepare(fresh, captions, batch=16)
    assert (home / FILE).read_bytes() == (fresh / FILE).read_bytes()


def test_too_few_captions_says_how_many_are_missing(home: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a cat in the snow\n", encoding="utf-8")
    # Each caption gives 5 words and the end of text, the same six encodings every time.
    with pytest.raises(SingularCovariance, match=r"1 captions .* 6 encodings.*span 6 .*about 10 "):
        prepare(home, few)
    assert not (home / STATE).exists()
    assert not (home / FILE).exists()


def test_only_the_ridge_is_refused_and_no_caption_is_read_again(home: Path, captions: Path) -> None:
    # A final layer norm without training leaves one direction out.
    with pytest.raises(SingularCovariance, match="ridge"):
        prepare(home, captions, ridge=0)
    seen: list[int] = []
    prepare(home, captions, ridge=1e-4, progress=lambda done, _: seen.append(done))
    assert seen == []
    assert (home / FILE).exists()


def test_what_was_prepared_is_not_replaced_unasked(home: Path, captions: Path) -> None:
    prepare(home, captions)
    before = (home / FILE).read_bytes()
    with pytest.raises(FailedPrecondition, match="--restart"):
        prepare(home, captions, positions="all")
    assert (home / FILE).read_bytes() == before
    prepare(home, captions, positions="all", restart=True)
    assert (home / FILE).read_bytes() != before


def test_another_unfinished_preparation_is_not_mixed_in(
    home: Path, captions: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(home, captions, progress=interrupt, checkpoint_seconds=0)
    other = write_captions(tmp_path / "other.txt", 120, seed=9)
    with pytest.raises(FailedPrecondition, match="differs in batch, captions; "):
        prepare(home, other, batch=3)
    (home / STATE).write_bytes(b"\0" * 100)
    with pytest.raises(DataLoss, match="damaged"):
        prepare(home, captions)
    asset = prepare(home, other, restart=True)
    assert asset.captions == 120


def test_a_damaged_or_foreign_covariance_is_not_used(
    home: Path, tiny_sd21_dir: Path, captions: Path, tmp_path: Path
) -> None:
    prepare(home, captions)
    whole = (home / FILE).read_bytes()
    (home / FILE).write_bytes(whole[:-8])
    with pytest.raises(DataLoss, match="--restart"):
        BaseModel.load(home)
    (home / FILE).write_bytes(whole.replace(b"sha256:", b"sha256;"))
    with pytest.raises(BaseModelMismatch, match="belongs to base model sha256;"):
        BaseModel.load(home)
    assert prepare(home, captions, restart=True).to_bytes() == whole
    other = Path(shutil.copytree(tiny_sd21_dir, tmp_path / "other"))
    (other / FILE).parent.mkdir()
    (other / FILE).write_bytes(whole)
    with pytest.raises(DataLoss, match="width 40"):
        BaseModel.load(other)


def test_settings_and_files_are_checked_first(home: Path, captions: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="must be words or all"):
        prepare(home, captions, positions="some")
    with pytest.raises(InvalidArgument, match="ridge is nan"):
        prepare(home, captions, ridge=float("nan"))
    with pytest.raises(InvalidArgument, match="batch is 0"):
        prepare(home, captions, batch=0)
    with pytest.raises(NotFound, match="one caption a line"):
        prepare(home, tmp_path / "none.txt")
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(InvalidArgument, match="no caption"):
        prepare(home, tmp_path / "blank.txt")
    (tmp_path / "latin.txt").write_bytes("Café\n".encode("latin-1"))
    with pytest.raises(InvalidArgument, match="not UTF-8 in the line that ends at byte 5"):
        prepare(home, tmp_path / "latin.txt")
    assert not (home / FILE).parent.exists()


def test_an_unprepared_base_renders_words_but_no_concept(home: Path) -> None:
    base = BaseModel.load(home)
    assert base.covariance is None
    assert plan(base, "a cat").key_lock is None
    with pytest.raises(FailedPrecondition, match="perfuse base prepare"):
        _ = base.inverse_covariance
