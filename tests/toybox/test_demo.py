"""The demo end to end, with few steps: every file it promises, and a sheet with pictures on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from perfuse.adapter.tensors import Adapter
from perfuse_toybox.demo import demo


def test_the_demo_leaves_pictures_adapters_and_one_sheet(tmp_path: Path) -> None:
    demo(out=tmp_path, steps=2, sampling_steps=2)
    for name, count in (("tom", 5), ("shades", 5), ("throne", 5)):
        assert len(list((tmp_path / "pictures" / name).glob("*.png"))) == count
    locks = {
        path.stem: Adapter.read(path).metadata.key_lock
        for path in (tmp_path / "adapters").glob("*.safetensors")
    }
    assert locks == {
        "tom-local": "LOCAL",
        "shades-local": "LOCAL",
        "throne-local": "LOCAL",
        "tom-trained_k": "TRAINED_K",
    }
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[0] > 1500
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
