"""No words of a library's, and no place on a machine, reach whoever calls."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from pathlib import Path

import ports
import pytest
from bases import load_prepared
from diffusers import DDIMScheduler
from trainer.workshop import workshop

from fuzz import target
from perfuse.client.registry import RegistryClient
from perfuse.errors import InvalidArgument, PictureRefused, Unavailable
from perfuse.names import ConceptName
from perfuse_renderer import studio
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.pictures.intake_process import IntakeProcess
from perfuse_trainer.pictures.picture_header import judge


def test_a_neighbour_that_is_away_has_no_address(caplog: pytest.LogCaptureFixture) -> None:
    """gRPC names machines and ports; our log tells them."""
    port = str(ports.free_ports(1))

    async def ask() -> None:
        async with RegistryClient(f"127.0.0.1:{port}") as registry:
            await registry.concept(ConceptName("acme", "tom"), "Bearer x")

    with (
        caplog.at_level(logging.WARNING, "perfuse.client.registry"),
        pytest.raises(Unavailable) as refused,
    ):
        asyncio.run(ask())
    assert str(refused.value) == "the Registry does not answer at the moment. Call again later"
    assert refused.value.status == "UNAVAILABLE"
    assert port in caplog.text


def test_a_broken_picture_is_told_of_in_our_words() -> None:
    told = set()
    with IntakeProcess() as intake:
        for name in ("jpeg-RGB", "png-RGB", "webp"):
            whole = target("pictures").seeds()[name]
            for place in range(20, len(whole), 5):
                data = whole[:place] if place % 2 else whole[:place] + b"\x55" + whole[place + 1 :]
                with suppress(PictureRefused):
                    header = judge(data, "tom.png")
                    try:
                        intake.decode(data, "tom.png", header)
                    except PictureRefused as refusal:
                        told.add(str(refusal))
    words = r"tom.png is damaged and cannot be decoded \((.*)\); a picture must be whole: .*"
    found = {match[1] for each in told if (match := re.fullmatch(words, each))}
    ours = {
        "its decoder finds it broken",
        "its end is missing",
        "its header and its pixels disagree about their size",
    }
    assert len(found) == len(told)
    assert {"its decoder finds it broken", "its end is missing"} <= found <= ours


def test_a_scheduler_that_cannot_is_told_of_in_our_words() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=10)
    with pytest.raises(ValueError, match="unet model"):
        scheduler.set_timesteps(20)
    with pytest.raises(InvalidArgument, match="ddim cannot take 20") as refused:
        studio._require_steps(scheduler, "ddim", 20)
    assert "unet" not in str(refused.value)


def test_the_operators_checkpoint_has_no_place(
    tiny_sd15_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = load_prepared(tiny_sd15_dir)
    missing = tmp_path / "clipseg-of-the-operator"
    with workshop("sqlite", tmp_path / "shop") as shop:
        run = shop.run(base, settings={"mask_source": MaskSource.CLIPSEG})
        shop.work(base, clipseg=missing)
        row = shop.row(run)
        assert (row.state, row.error_reason) == ("FAILED", "FAILED_PRECONDITION")
        assert missing.name not in row.error_message
        assert "Choose CROSS_ATTENTION" in row.error_message
    assert missing.name in caplog.text
