"""What a container's first process makes of SIGTERM before it serves."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import perfuse

# The kernel spares process 1 alone, which a test cannot be: the number is feigned, and the status
# tells whether the handler ended the process (143) or the kernel did (-15).
PROGRAM = """
import os, signal, sys
number, mode = int(sys.argv[1]), sys.argv[2]
os.getpid = lambda: number
if mode == "handled":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
import importlib.util
spec = importlib.util.spec_from_file_location("process_one", sys.argv[3])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.die_of_sigterm()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("number", "mode", "status"), [(1, "fresh", 143), (42, "fresh", -15), (1, "handled", 7)]
)
def test_process_one_dies_of_sigterm_unless_it_has_a_handler(
    number: int, mode: str, status: int
) -> None:
    module = Path(perfuse.__file__).parent / "serving" / "process_one.py"
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(number), mode, module], timeout=30)
    assert ran.returncode == status


@pytest.mark.parametrize("service", ["registry", "trainer", "renderer"])
def test_every_service_begins_with_it(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = importlib.import_module(f"perfuse_{service}.__main__")
    begun: list[str] = []
    monkeypatch.setattr(command, "die_of_sigterm", lambda: begun.append(service))
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert begun == [service]
