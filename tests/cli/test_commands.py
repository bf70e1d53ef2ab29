"""The commands against a live platform, from pictures to pictures."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from platform_up import PERFUSE, Platform

from perfuse.adapter.header import digest, read_header
from perfuse.client import Connection
from perfuse_toybox.concepts import TOM

from .shell import Shell, environment, process, terminal

STEPS = ("--steps", "4")
Named = Callable[[str], str]


@pytest.fixture(scope="module")
def connection(platform: Platform) -> Connection:
    return platform.connection


@pytest.fixture
def perfuse(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    return Shell(connection, monkeypatch, capsys)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    TOM.write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def tom(connection: Connection, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a concept with one version, taught by `perfuse train`."""
    concept = f"tom-{uuid4().hex[:8]}"
    previews = tmp_path_factory.mktemp("previews")
    told = process(
        connection,
        *("train", concept, str(pictures), "--super-category", "cat"),
        *(
            "--steps",
            "6",
            "--batch",
            "2",
            "--output-rate",
            "0.1",
            "--validate-every",
            "3",
            "--preview-every",
            "6",
        ),
        *("--preview-prompt", f"a photo of <{concept}>", "--save-previews", str(previews)),
    )
    assert told.code == 0, told.err
    assert told.out == f"{concept}@1\n", "the answer is the version, for scripts to take"
    for words in ("running", "step 6 of 6", "best validation", "succeeded", "perfuse render"):
        assert words in told.err
    (kept,) = previews.iterdir()
    with Image.open(kept) as preview:
        assert preview.size == (32, 32)
    return concept


@pytest.fixture
def fresh() -> Named:
    """Ids that no other test has."""
    return lambda name: f"{name}-{uuid4().hex[:8]}"


def test_a_concept_from_its_creation_to_its_return(perfuse: Shell, fresh: Named) -> None:
    cat = fresh("cat")
    made = perfuse("concept", "create", cat, "--super-category", "cat", "--label", f"only={cat}")
    assert made.code == 0
    assert cat in made.out
    twice = perfuse("concept", "create", cat, "--super-category", "cat", "--json")
    assert twice.code == 1
    assert twice.refusal["reason"] == "ALREADY_EXISTS"
    assert twice.refusal["resource"].endswith(f"/concepts/{cat}")
    listed = perfuse("concept", "list", "--filter", f'labels.only = "{cat}"', "--json")
    assert [each["name"].rpartition("/")[2] for each in listed.json] == [cat]
    shown = perfuse("concept", "show", cat, "--json").json
    assert shown["concept"]["super_category"] == "cat"
    assert shown["versions"] == shown["aliases"] == []
    assert "perfuse train" in perfuse("concept", "show", cat).err
    gone = perfuse("concept", "delete", cat)
    assert gone.code == 0
    assert f"perfuse concept undelete {cat}" in gone.err
    assert cat not in perfuse("concept", "list").out
    assert cat in perfuse("concept", "list", "--deleted").out
    assert perfuse("concept", "undelete", cat).code == 0
    assert cat in perfuse("concept", "list").out


def test_a_concept_with_versions_goes_only_by_force(perfuse: Shell, tom: str) -> None:
    kept = perfuse("concept", "delete", tom)
    assert kept.code == 1
    assert "--force" in kept.err


def test_the_run_is_listed_shown_and_watched_again(perfuse: Shell, tom: str) -> None:
    (run,) = [each for each in perfuse("runs", "list", "--json").json if tom in each["concept"]]
    name = run["name"].rpartition("/")[2]
    assert run["state"] == "SUCCEEDED"
    assert (run["settings"]["steps"], run["settings"]["output_rate"]) == (6, pytest.approx(0.1))
    shown = perfuse("runs", "show", name)
    assert "succeeded" in shown.out
    assert f"{tom}@1" in shown.out
    again = perfuse("runs", "watch", name, "--json")
    assert again.code == 0
    assert again.err == ""
    *events, end = again.lines
    assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
    assert {"state", "progress", "validation", "preview"} <= {each["event"] for each in events}
    assert end["event"] == "end"
    assert end["run"]["version"].endswith(f"{tom}/versions/1")
    assert perfuse("runs", "watch", name).out == f"{tom}@1\n"


def test_an_alias_is_made_moved_and_remembered(
    perfuse: Shell, tom: str, tmp_path: Path, fresh: Named
) -> None:
    cat, file = fresh("cat"), str(tmp_path / "a.safetensors")
    assert perfuse("export", tom, "-o", file).code == 0
    for _ in range(2):
        assert perfuse("import", file, "--concept", cat, "--create").code == 0
    assert "new" in perfuse("promote", f"{cat}@1", "prod").out
    moved = perfuse("promote", f"{cat}@2", "prod")
    assert moved.out == f"{cat}@prod moved from {cat}@1 to {cat}@2\n"
    assert "already" in perfuse("promote", cat, "prod").out
    back = perfuse("promote", f"{cat}@1", "prod", "--json").json
    assert back["from_version"].endswith("/versions/2")
    assert back["to_version"].endswith("/versions/1")
    assert f"{cat}@1" in perfuse("alias", "list", cat).out
    moves = perfuse("alias", "history", cat, "prod", "--json").json
    assert [each["to_version"][-1] for each in moves] == ["1", "2", "1"]
    pointed_at = perfuse("version", "delete", f"{cat}@1")
    assert pointed_at.code == 1
    assert "prod" in pointed_at.err
    assert perfuse("alias", "delete", cat, "prod").code == 0
    assert perfuse("version", "delete", f"{cat}@1").code == 0
    assert perfuse("alias", "history", cat, "prod").out.count("\n") == 5
    assert perfuse("concept", "show", cat, "--json").json["aliases"] == []


def test_a_version_keeps_its_previews_and_its_curve(
    perfuse: Shell, tom: str, tmp_path: Path, fresh: Named
) -> None:
    shown = perfuse("version", "show", tom, "--json").json
    assert [each["step"] for each in shown["curve"]] == [3, 6]
    assert [(each["step"], each["caption"]) for each in shown["previews"]] == [(6, "a photo of <>")]
    told = perfuse("version", "show", tom).out
    assert "validation loss" in told
    assert "1, after 6 steps" in told
    saved = perfuse("version", "previews", tom, "--out", str(tmp_path / "drawn"))
    path = tmp_path / "drawn" / f"{tom}-1-step-00006-1.jpg"
    assert saved.out == f"{path}\n"
    assert digest(path.read_bytes()) == shown["previews"][0]["digest"]
    with Image.open(path) as picture:
        assert picture.size == (32, 32)
    file, cat = str(tmp_path / "a.safetensors"), fresh("cat")
    assert perfuse("export", tom, "-o", file).code == 0
    assert perfuse("import", file, "--concept", cat, "--create").code == 0
    without = perfuse("version", "previews", cat)
    assert without.code == 3
    assert "--previews" in without.err


def test_an_adapter_goes_out_and_comes_in_with_its_digest(
    perfuse: Shell, tom: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Named
) -> None:
    monkeypatch.chdir(tmp_path)
    out = perfuse("export", f"{tom}@1")
    path = tmp_path / f"{tom}-1.safetensors"
    assert out.out == f"{path.name}\n"
    assert read_header(path).metadata.super_category == "cat"
    shown = perfuse("version", "show", f"{tom}@1", "--json").json
    assert shown["digest"] == digest(path.read_bytes())
    cat = fresh("cat")
    absent = perfuse("import", str(path), "--concept", cat)
    assert absent.code == 3
    back = perfuse(
        "import", str(path), "--concept", cat, "--create", "--description", "d", "--json"
    )
    assert back.json["digest"] == shown["digest"]
    assert back.json["description"] == "d"
    assert perfuse("concept", "show", cat, "--json").json["concept"]["super_category"] == "cat"
    path.write_bytes(path.read_bytes()[:-1])
    assert perfuse("import", str(path), "--concept", cat, "--json").refusal["reason"] == "TRUNCATED"


def test_pictures_and_their_sheet(perfuse: Shell, tom: str, tmp_path: Path) -> None:
    prompt = f"a photo of <{tom}> in the snow"
    done = perfuse("render", prompt, "-n", "2", "-o", str(tmp_path), "--name", "snow", *STEPS)
    assert done.code == 0
    *files, sheet = map(Path, done.out.splitlines())
    assert sheet == tmp_path / "sheet.png"
    assert len(files) == 2
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (32, 32)
            record = json.loads(picture.info["perfuse"])
            assert file == tmp_path / f"snow-{record['seed']}.png"
    with Image.open(sheet) as page:
        assert page.width > 2 * 128
        assert page.height > 128 + 80


def test_a_render_says_exactly_what_was_rendered(perfuse: Shell, tom: str, tmp_path: Path) -> None:
    done = perfuse(
        *("render", f"a photo of <{tom}@1>", "--seed", "7", "--seed", "8", "-o", str(tmp_path)),
        *(*STEPS, "--guidance", "2", "--scheduler", "euler", "--size", "32x64", "--lock", "global"),
        *("--bias", f"{tom}@1=0.5", "--temperature", f"<{tom}@1>=0.25", "--negative", "a dog"),
        *("--format", "jpeg", "--base-model", "toybox", "--chunk", "--json"),
    )
    assert done.code == 0, done.err
    assert done.err == ""
    records = [each["record"] for each in done.json["images"]]
    assert [record["seed"] for record in records] == [7, 8]
    wanted = {
        "guidance": 2.0,
        "scheduler": "euler",
        "width": 32,
        "height": 64,
        "steps": 4,
        "key_lock": "GLOBAL",
        "negative_prompt": "a dog",
        "base_model": "baseModels/toybox",
    }
    assert {name: records[0][name] for name in wanted} == wanted
    (gate,) = records[0]["concepts"]
    assert gate["placeholder"] == f"{tom}@1"
    assert gate["bias"] == pytest.approx(0.5)
    assert gate["temperature"] == pytest.approx(0.25)
    for image in done.json["images"]:
        with Image.open(image["path"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", (32, 64))


def test_a_sweep_changes_the_bias_along_a_row_and_nothing_else(
    perfuse: Shell, tom: str, tmp_path: Path
) -> None:
    done = perfuse(
        *("sweep", f"a photo of <{tom}>", "--concept", tom, "--count", "3", "-n", "2"),
        *("-o", str(tmp_path), *STEPS, "--json"),
    )
    assert done.code == 0, done.err
    images = done.json["images"]
    assert [image["bias"] for image in images] == [0.1, 0.1, 0.4, 0.4, 0.7, 0.7]
    for image in images:
        (concept,) = image["record"]["concepts"]
        assert concept["bias"] == pytest.approx(image["bias"])
    seeds = [image["record"]["seed"] for image in images]
    assert seeds == seeds[:2] * 3
    assert len({image["path"] for image in images}) == 6
    with Image.open(done.json["sheet"]) as page:
        assert page.width > 3 * 128
        assert page.height > 2 * 128


def test_what_is_ready_and_under_way(perfuse: Shell) -> None:
    told = perfuse("status", "--json").json
    assert [each["name"] for each in told["renderer"]["base_models"]] == ["baseModels/toybox"]
    assert "toybox (32 pixels)" in perfuse("status").out


def test_a_detached_run_is_cancelled_and_that_is_no_success(
    perfuse: Shell, tom: str, pictures: Path
) -> None:
    queued = perfuse(
        *("train", tom, str(pictures), "--super-category", "cat", "--steps", "5000"),
        *("--batch", "1", "--detach"),
    )
    assert queued.code == 0
    run = queued.out.strip()
    early = perfuse("runs", "delete", run, "--json")
    assert early.code == 1
    assert early.refusal["reason"] == "TRAINING_RUN_NOT_ENDED"
    assert run in perfuse("status").out
    assert perfuse("runs", "cancel", run).code == 0
    watched = perfuse("runs", "watch", run)
    assert watched.code == 6
    assert watched.out == ""
    assert "cancelled; no version" in watched.err
    assert perfuse("runs", "delete", run, "--json").json == {"deleted": run}
    assert perfuse("runs", "show", run).code == 3


def test_ctrl_c_leaves_the_run_and_another_watch_can_cancel_it(
    connection: Connection, perfuse: Shell, tom: str, pictures: Path
) -> None:
    train = ("train", tom, str(pictures), "--super-category", "cat")
    with terminal(connection, *train, "--steps", "5000", "--batch", "1") as first:
        first.wait_for("loss")
        first.interrupt()
        assert first.end() == 130
    assert "The run goes on" in first.seen
    assert first.seen.count("\x1b[?25h") >= first.seen.count("\x1b[?25l"), "the cursor is back"
    run = first.seen.partition("perfuse runs watch ")[2].split()[0]
    assert perfuse("runs", "show", run, "--json").json["state"] == "RUNNING"
    with terminal(connection, "runs", "watch", run, "--cancel") as second:
        second.wait_for("loss")
        second.interrupt()
        assert second.end() == 130
    assert "cancelled" in second.seen
    assert "Traceback" not in first.seen + second.seen
    assert perfuse("runs", "show", run, "--json").json["state"] == "CANCELLED"


def test_a_terminal_with_colours_sees_the_pictures(
    connection: Connection, tom: str, tmp_path: Path
) -> None:
    render = ("render", f"<{tom}>", "-o", str(tmp_path), *STEPS)
    with terminal(connection, *render, extra={"COLORTERM": "truecolor"}) as blocks:
        assert blocks.end() == 0
    assert blocks.seen.count("▀") == 32 * 16
    with terminal(connection, *render, extra={"PERFUSE_PICTURES": "kitty"}) as kitty:
        assert kitty.end() == 0
    assert "\x1b_Gf=100,a=T" in kitty.seen


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("concept", "show", "nobody"), 3, "NOT_FOUND"),
        (("concept", "show", "No Body"), 1, "INVALID_ARGUMENT"),
        (("version", "show", "nobody@7"), 3, "NOT_FOUND"),
        (("promote", "nobody@1", "prod"), 3, "NOT_FOUND"),
        (("runs", "show", "nothing"), 3, "NOT_FOUND"),
        (("runs", "watch", "nothing"), 3, "NOT_FOUND"),
        (("export", "nobody"), 3, "NOT_FOUND"),
        (("import", "nowhere.safetensors", "--concept", "nobody"), 3, "NOT_FOUND"),
        (("train", "nobody", "nowhere", "--super-category", "cat"), 3, "NOT_FOUND"),
        (("render", "a photo of <nobody>"), 3, "NOT_FOUND"),
        (("render", "a photo of <nobody"), 1, "INVALID_ARGUMENT"),
        (("render", "a photo", "--scheduler", "none-such"), 1, "INVALID_ARGUMENT"),
        (("render", "a photo", "--lock", "none-such"), 2, "USAGE"),
        (("sweep", "a photo", "--concept", "nobody"), 1, "INVALID_ARGUMENT"),
        (("sweep", "a photo"), 2, "USAGE"),
        (("--token", "perfuse_wrong", "concept", "list"), 4, "UNAUTHENTICATED"),
        (("--tenant", "someone-else", "concept", "list"), 3, "NOT_FOUND"),
        (("--registry", "nowhere", "concept", "list"), 1, "INVALID_ARGUMENT"),
        (("--config", "nowhere.toml", "concept", "list"), 3, "NOT_FOUND"),
        (("--registry", "127.0.0.1:1", "concept", "list"), 5, "UNAVAILABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refusals(
    perfuse: Shell,
    arguments: tuple[str, ...],
    code: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = perfuse(*arguments, "--json")
    assert told.code == code
    assert told.refusal["reason"] == reason
    assert told.refusal["message"]
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_every_command_answers_in_json(
    perfuse: Shell, tom: str, pictures: Path, tmp_path: Path, fresh: Named
) -> None:
    cat, file = fresh("cat"), str(tmp_path / "a.safetensors")
    train = ("--super-category", "cat", "--steps", "5000", "--batch", "1", "--detach")
    run = perfuse("train", tom, str(pictures), *train, "--json").json["name"]
    asked = [
        ("concept", "create", cat, "--super-category", "cat"),
        ("concept", "list"),
        ("concept", "show", tom),
        ("export", tom, "-o", file),
        ("import", file, "--concept", cat),
        ("version", "list", cat),
        ("version", "show", cat),
        ("promote", f"{cat}@1", "prod"),
        ("alias", "list", cat),
        ("alias", "history", cat, "prod"),
        ("alias", "delete", cat, "prod"),
        ("version", "delete", f"{cat}@1"),
        ("concept", "delete", cat),
        ("concept", "undelete", cat),
        ("runs", "list"),
        ("runs", "show", run),
        ("runs", "cancel", run),
        ("status",),
        ("base", "list"),
    ]
    for arguments in asked:
        answer = perfuse(*arguments, "--json")
        assert answer.code == 0, (arguments, answer.err)
        assert answer.err == "", arguments
        assert isinstance(answer.json, dict | list), arguments


def test_a_concept_of_another_kind_is_not_taught(perfuse: Shell, tom: str, pictures: Path) -> None:
    told = perfuse("train", tom, str(pictures), "--super-category", "dog", "--json")
    assert told.code == 1
    assert told.refusal["reason"] == "FAILED_PRECONDITION"


def test_flags_beat_the_environment_and_the_environment_the_file(
    connection: Connection,
    perfuse: Shell,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    said = environment(connection)
    file = tmp_path / "config.toml"
    file.write_text("".join(f'{key[8:].lower()} = "{value}"\n' for key, value in said.items()))
    for name in said:
        monkeypatch.delenv(name)
    assert perfuse("--config", str(file), "concept", "list").code == 0
    monkeypatch.setenv("PERFUSE_TOKEN", "perfuse_wrong")
    assert perfuse("--config", str(file), "concept", "list").code == 4
    right = ("--token", connection.token)
    assert perfuse("--config", str(file), *right, "concept", "list").code == 0


def test_the_shell_completes_concepts(connection: Connection, tom: str) -> None:
    asked = {
        "_PERFUSE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"perfuse concept show {tom[:6]}",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [*PERFUSE],
        env={**os.environ, **environment(connection), **asked},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert tom in done.stdout.split()


def test_the_registered_base_models(perfuse: Shell) -> None:
    assert "toybox" in [
        each["name"].removeprefix("baseModels/") for each in perfuse("base", "list", "--json").json
    ]
    assert "toybox" in perfuse("base", "list").out
