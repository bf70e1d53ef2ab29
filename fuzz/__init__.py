"""Coverage-guided fuzzing of what reads a stranger's bytes.

    make fuzz                                every target, one minute each
    make fuzz MINUTES=10 TARGETS='prompts'   one, for longer

Each target is a module with two functions: `seeds`, inputs to begin with by name, and `one`, which
gives one input to what is fuzzed and raises if a promise is broken: an exception that is not a
refusal, or an answer that breaks a law. What `one` raises is a crash. `corpus/` keeps for each
target the smallest set of inputs found that reach all that was ever reached; the ordinary suite
replays it (`tests/security/test_corpus.py`), without the fuzzer.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

TARGETS = {
    "adapters": ("perfuse.adapter",),
    "filters": ("perfuse.storage",),
    "page_tokens": ("perfuse.storage",),
    "pictures": ("perfuse_trainer.pictures", "PIL"),
    "prompts": ("perfuse_renderer.prompts",),
    "credentials": (
        *("perfuse.serving.caller_file", "perfuse.serving.identity", "perfuse.serving.tokens"),
    ),
    "signed_tokens": ("perfuse.serving.oidc", "perfuse.serving.issuer_keys", "jwt"),
}
"""Name of a target → the packages whose branches guide the search."""

TESTS = Path(__file__).parent.parent / "tests"
CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target, files named by a digest of their bytes."""


def target(name: str) -> ModuleType:
    """The module of a target."""
    # Targets begin with the samples that tests are made of.
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return importlib.import_module(f"fuzz.{name}")


def kept(name: str) -> dict[str, bytes]:
    """The kept corpus of a target: name of the file → input."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}
