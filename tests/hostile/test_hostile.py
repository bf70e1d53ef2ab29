"""Every hostile file is refused: by its own error, at once, and without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from adapter.samples import BASE

from hostile.catalogue import HOSTILE, VALID, Hostile
from perfuse.adapter import errors
from perfuse.adapter.tensors import Adapter
from perfuse.errors import AdapterRefused, BaseModelMismatch

TESTS = Path(__file__).parent.parent
SECONDS = 0.050

each = pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)


def refusal(data: bytes) -> Exception:
    with pytest.raises((AdapterRefused, BaseModelMismatch)) as caught:
        Adapter.from_bytes(data, expect_base=BASE)
    return caught.value


def test_the_file_they_are_made_from_is_read() -> None:
    assert Adapter.from_bytes(VALID, expect_base=BASE).to_bytes() == VALID


def test_at_least_forty_and_no_two_alike() -> None:
    assert len(HOSTILE) >= 40
    assert len({case.name for case in HOSTILE}) == len(HOSTILE)
    assert len({case.data() for case in HOSTILE}) == len(HOSTILE)


def test_every_error_of_the_tree_has_a_file_that_earns_it() -> None:
    cases = {
        case
        for case in vars(errors).values()
        if isinstance(case, type)
        and issubclass(case, AdapterRefused)
        and case is not AdapterRefused
    }
    # A path that is no regular file has no bytes; tests/adapter/test_file.py has it.
    assert {case.refused_as for case in HOSTILE} == (cases - {errors.NotAFile}) | {
        BaseModelMismatch
    }


@each
def test_refused_as_what_it_is(case: Hostile) -> None:
    assert type(refusal(case.data())) is case.refused_as


@each
def test_message_is_short_and_harmless(case: Hostile) -> None:
    message = str(refusal(case.data()))
    assert 20 < len(message) < 600
    assert message.isascii()
    assert message.isprintable()


@each
def test_refused_within_50_ms(case: Hostile) -> None:
    data = case.data()
    best = float("inf")
    # The reader's own time, at the best of a few tries: it touches no disk here, and what else
    # the machine is busy with is not its doing.
    for _ in range(5):
        begin = time.thread_time()
        refusal(data)
        best = min(best, time.thread_time() - begin)
        if best <= SECONDS:
            break
    assert best <= SECONDS


@each
def test_refused_from_a_path_as_well(case: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(case.data())
    with pytest.raises(case.refused_as):
        Adapter.read(path, expect_base=BASE)


WITHOUT_TORCH = """
import sys
from adapter.samples import BASE
from hostile.catalogue import HOSTILE
from perfuse.adapter import check_finite, read_header
from perfuse.errors import PerfuseError

for case in HOSTILE:
    data = case.data()
    reached = "header"
    try:
        header = read_header(data)
        reached = "base"
        header.require_base(BASE)
        reached = "values"
        check_finite(header, data)
        reached = "nothing"
    except PerfuseError as error:
        assert type(error) is case.refused_as, (case.name, error)
    assert reached == case.where, (case.name, reached)

print(len(HOSTILE), *sorted({"torch", "numpy", "safetensors"} & sys.modules.keys()))
"""


def test_a_process_without_torch_refuses_them_all() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.split() == [str(len(HOSTILE))]
