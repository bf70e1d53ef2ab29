"""JSON read without mercy and written in one form.

The standard library's reader keeps the last of two equal keys, accepts NaN, and recurses as deep
as the text does. Bytes from strangers are read here instead.
"""

from __future__ import annotations

import json
import math
import re

from perfuse.adapter.errors import DuplicateKey, shown
from perfuse.adapter.limits import MAX_JSON_DEPTH, MAX_NUMBER_CHARACTERS
from perfuse.errors import AdapterRefused

# An unterminated string is matched to the end of the text: were it left unmatched, each escaped
# quote inside would start a search of its own, and the time would grow with the square.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def parse(text: str, what: str, malformed: type[AdapterRefused]) -> object:
    """Reads `text`, refusing duplicate keys, depth, NaN, infinities and overlong numbers.

    Args:
        text: the JSON text.
        what: what the text is, for messages: "the header".
        malformed: the error for text that is not JSON within the limits.

    Raises:
        DuplicateKey: an object names a key twice.
        AdapterRefused: as `malformed`, for every other fault.
    """

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise DuplicateKey(
                    f"{what} names the key {shown(key)} twice; a key may stand once in an object. "
                    "Write the file anew"
                )
            found[key] = value
        return found

    def short(number: str) -> str:
        if len(number) > MAX_NUMBER_CHARACTERS:
            raise malformed(
                f"{what} holds a number of {len(number)} characters; at most "
                f"{MAX_NUMBER_CHARACTERS} are read. Write it shorter"
            )
        return number

    def integer(number: str) -> int:
        return int(short(number))

    def real(number: str) -> float:
        value = float(short(number))
        if not math.isfinite(value):
            raise malformed(f"{what} holds {shown(number)}, which is no finite number")
        return value

    def constant(name: str) -> None:
        raise malformed(f"{what} holds {name}, which is not JSON; numbers must be finite")

    _refuse_depth(text, what, malformed)
    try:
        return json.loads(
            text,
            object_pairs_hook=members,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
    except json.JSONDecodeError as error:
        raise malformed(
            f"{what} is not JSON: {error.msg} at character {error.pos}. The file is damaged, or "
            "not an adapter"
        ) from None


def canonical(value: object) -> str:
    """The one text for `value`: sorted keys, no spaces, non-ASCII as itself, no NaN."""
    return _CANONICAL.encode(value)


def _refuse_depth(text: str, what: str, malformed: type[AdapterRefused]) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise malformed(
                f"{what} nests deeper than {MAX_JSON_DEPTH} levels, which no adapter does"
            )
