"""What callers say and see, through messages and back; and what of it is public."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

import perfuse.client
from perfuse.client import (
    AsyncClient,
    Client,
    ConceptSettings,
    Picture,
    PreviewSettings,
    RenderSettings,
    TrainingSettings,
)
from perfuse.client.attachments import (
    MAX_CURVE_POINTS,
    MAX_PREVIEW_BYTES,
    MAX_PREVIEWS,
    MAX_PREVIEWS_BYTES,
)
from perfuse.client.reading_trainer import training_settings as read_training_settings
from perfuse.client.uploads import read_pictures
from perfuse.client.writing import Names, key_lock, render_settings, training_settings
from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound
from perfuse.v1 import renderer_pb2
from perfuse_registry.catalog.attachments import MAX_PREVIEWS_BYTES as CATALOG_BYTES
from perfuse_registry.catalog.preview_pictures import MAX_BYTES

ROOT = Path(__file__).parents[2]
IDS = some.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
RATES = some.none() | some.floats(0.001, 10)


class TestBounds:
    def test_those_of_previews_are_the_api_s(self) -> None:
        text = (ROOT / "proto/perfuse/v1/registry.proto").read_text()
        asked = text.partition("message CreateVersionRequest {")[2].partition("// See ")[0]
        assert f"previews = 7 [(buf.validate.field).repeated.max_items = {MAX_PREVIEWS}]" in asked
        assert f"curve = 8 [(buf.validate.field).repeated.max_items = {MAX_CURVE_POINTS}]" in asked
        assert f"max_len: {MAX_PREVIEW_BYTES}}}" in asked
        assert f"at most {MAX_PREVIEWS_BYTES >> 20} MiB in all" in asked
        assert (MAX_BYTES, CATALOG_BYTES) == (MAX_PREVIEW_BYTES, MAX_PREVIEWS_BYTES)


class TestNames:
    @given(IDS, IDS, some.none() | IDS | some.integers(1, 10**17).map(str))
    def test_short_and_whole_ones_mean_the_same(
        self, tenant: str, concept: str, version: str | None
    ) -> None:
        names = Names(tenant)
        whole = f"tenants/{tenant}/concepts/{concept}"
        assert str(names.concept(concept)) == str(names.concept(whole)) == whole
        short = concept if version is None else f"{concept}@{version}"
        long = f"{whole}/versions/{version or 'latest'}"
        assert str(names.version(short)) == str(names.version(long)) == long
        assert str(names.version(f"{whole}@{version or 'latest'}")) == long
        assert str(names.alias(concept, "prod")) == str(names.alias(f"{whole}/aliases/prod"))
        assert str(names.base_model(concept)) == str(names.base_model(f"baseModels/{concept}"))

    @pytest.mark.parametrize("said", ["", "Tom", "tom@", "tom@0", "tom@a@b", "a/b", "tom 7"])
    def test_what_is_no_name_is_refused(self, said: str) -> None:
        if said == "tom@":
            assert str(Names("acme").version(said)).endswith("/versions/latest")
            return
        with pytest.raises(InvalidArgument):
            Names("acme").version(said)

    def test_short_ones_need_a_tenant(self) -> None:
        with pytest.raises(FailedPrecondition, match="PERFUSE_TENANT"):
            Names("").concept("tom")
        assert Names("").concept("tenants/acme/concepts/tom").tenant == "acme"


class TestSettings:
    @given(
        some.builds(
            TrainingSettings,
            steps=some.none() | some.integers(1, 20_000),
            batch=some.none() | some.integers(1, 64),
            seed=some.integers(0, 2**31 - 1),
            mask_source=some.sampled_from(["NONE", "UPLOADED", "CLIPSEG", "CROSS_ATTENTION"]),
            validate_every=some.none() | some.integers(1, 100),
            patience=some.none() | some.integers(1, 100),
            flip=some.none() | some.floats(0, 1),
            output_rate=RATES,
            embedding_rate=some.none() | some.floats(0, 10),
            bias=some.none() | some.floats(-10, 10),
            temperature=RATES,
            render_bias=some.none() | some.floats(0, 1),
            render_temperature=RATES,
            previews=some.none()
            | some.builds(
                PreviewSettings,
                prompts=some.lists(some.text(min_size=1, max_size=9), max_size=4).map(tuple),
                every=some.none() | some.integers(1, 9),
                steps=some.none() | some.integers(1, 9),
                guidance=RATES,
            ),
            exclusive=some.booleans(),
        )
    )
    def test_of_training_come_back_as_they_went(self, said: TrainingSettings) -> None:
        sent = training_settings(said)
        assert read_training_settings(type(sent).FromString(sent.SerializeToString())) == said

    def test_of_renders_carry_every_field(self) -> None:
        said = RenderSettings(
            prompt="a <tom@7> and <shades>",
            negative_prompt="rain",
            concepts={
                "<tom@7>": ConceptSettings(bias=0.0, version="9"),
                "shades": ConceptSettings(),
            },
            key_lock="GLOBAL",
            seeds=(0, 7),
            width=64,
            height=32,
            steps=3,
            guidance=0.0,
            scheduler="euler",
            format="WEBP",
            base_model="toybox",
            chunk_long_prompts=True,
        )
        sent = render_settings(said, Names("acme"))
        left = {field.name for field, _ in sent.ListFields()}
        assert left == {field.name for field in sent.DESCRIPTOR.fields} - {"image_count"}
        assert render_settings(RenderSettings(prompt="a", count=3), Names("")).image_count == 3
        first, second = sent.concepts
        assert (first.placeholder, first.bias, first.version) == ("tom@7", 0.0, "9")
        assert not second.HasField("bias")
        assert sent.key_lock == renderer_pb2.RENDER_LOCK_GLOBAL

    @pytest.mark.parametrize(
        "call",
        [
            lambda: render_settings(RenderSettings(prompt="a", format="GIF"), Names("")),  # type: ignore[arg-type]
            lambda: render_settings(RenderSettings(prompt="a", key_lock="BOTH"), Names("")),  # type: ignore[arg-type]
            lambda: training_settings(TrainingSettings(mask_source="MAGIC")),  # type: ignore[arg-type]
            lambda: training_settings(TrainingSettings(steps=2.5)),  # type: ignore[arg-type]
            lambda: key_lock("GLOBAL"),
        ],
    )
    def test_what_no_field_takes_is_refused_here(self, call: Any) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            call()
        assert refusal.value.violations


class TestPictures:
    def test_a_folder_stands_for_its_pictures(self, tmp_path: Path) -> None:
        for name in ("b.png", "a.JPG", "notes.txt"):
            (tmp_path / name).write_bytes(name.encode())
        found = read_pictures([tmp_path, Picture("c.png", b"c")], {"b.png": b"mask"})
        assert [(each.file_name, each.mask) for each in found] == [
            ("a.JPG", None),
            ("b.png", b"mask"),
            ("c.png", None),
        ]

    def test_what_cannot_be_sent_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="holds no pictures"):
            read_pictures([tmp_path])
        with pytest.raises(NotFound, match=r"x\.png"):
            read_pictures([tmp_path / "x.png"])
        twice = [Picture("a.png", b"1"), Picture("a.png", b"2")]
        with pytest.raises(InvalidArgument, match="two pictures"):
            read_pictures(twice)
        with pytest.raises(InvalidArgument, match="no such picture"):
            read_pictures(twice[:1], {"b.png": b"mask"})


class TestPublic:
    def test_the_two_clients_have_the_same_methods(self) -> None:
        for name, part in _parts(Client).items():
            other = _parts(AsyncClient)[name]
            assert _public(part) == _public(other), name
        checked = subprocess.run(
            [sys.executable, "scripts/mirror_client.py", "--check"], cwd=ROOT, check=False
        )
        assert checked.returncode == 0

    def test_no_message_leaks_out(self) -> None:
        for part in _parts(Client).values():
            for name in _public(part):
                hints = typing.get_type_hints(getattr(part, name))
                assert "_pb2" not in repr(hints), f"{part.__name__}.{name}"
        for name in perfuse.client.__all__:
            kind = getattr(perfuse.client, name)
            if dataclasses.is_dataclass(kind):
                assert "_pb2" not in repr(typing.get_type_hints(kind))

    def test_what_is_offered_is_what_is_there(self) -> None:
        offered = {
            name
            for name, thing in vars(perfuse.client).items()
            if not name.startswith("_") and not inspect.ismodule(thing)
        }
        assert offered == set(perfuse.client.__all__)


def _parts(client: type) -> dict[str, type]:
    half = client.__module__.removesuffix(".client")
    names = ("Concepts", "Versions", "Aliases", "BaseModels", "ImageSets", "TrainingRuns")
    modules = ("concepts", "versions", "aliases", "base_models", "image_sets", "training_runs")
    found: dict[str, type] = {
        name: getattr(sys.modules[f"{half}.{module}"], name)
        for name, module in zip(names, modules, strict=True)
    }
    return found | {"Renderer": sys.modules[f"{half}.renderer"].Renderer, "Client": client}


def _public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}
