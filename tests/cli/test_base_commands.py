"""`perfuse base`: what a person sees, and what the command line does not load."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bases import WORDS

from perfuse.attach import BaseModel
from perfuse.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    seen = capsys.readouterr()
    return int(stop.value.code or 0), seen.out, seen.err


def test_prepare_then_show(
    tiny_sdxl_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Path(shutil.copytree(tiny_sdxl_dir, tmp_path / "base"))
    chosen = random.Random(1)
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(" ".join(chosen.choices(WORDS, k=8)) for _ in range(80)))
    code, out, _ = run(capsys, "base", "show", str(home))
    assert code == 0
    assert "none; run perfuse base prepare" in out
    code, out, err = run(
        capsys, "base", "prepare", str(home), "--captions", str(captions), "--ridge", "0.001"
    )
    assert code == 0
    assert "80 captions, 720 encodings, rank" in out
    assert "80/80" in err
    base = BaseModel.load(home)
    code, out, _ = run(capsys, "base", "show", str(home))
    assert code == 0
    assert base.fingerprint in out
    assert "sdxl-56" in out
    assert "80 captions, 720 encodings (words), ridge 0.001" in out
    for layer in base.layers:
        assert f"{layer.name} ({layer.width})" in out


def test_a_refusal_is_one_message_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "base", "show", str(tmp_path / "nowhere"))
    assert code == 3
    assert out == ""
    assert err.startswith("perfuse: ")
    assert "is not a directory" in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_help_loads_no_torch() -> None:
    script = (
        "import sys\n"
        "from perfuse.cli import main\n"
        "try:\n    main(['base', '--help'])\n"
        "finally:\n    heavy = {'torch', 'numpy', 'diffusers', 'transformers'}\n"
        "    heavy &= sys.modules.keys()\n    print('loaded:', sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "prepare" in done.stdout
    assert done.stdout.endswith("loaded: []\n")
