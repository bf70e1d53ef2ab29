"""Prepared statements of PostgreSQL, run by libpq itself.

psycopg's cursors take a statement apart, look whether it is worth preparing and wait for its answer
in Python, each time; for ours that takes longer than PostgreSQL does. Its adaptation of values is
kept, and so are its connections, their transactions and its errors.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_PLACEHOLDER = re.compile(r"%(?:\((?P<name>[^)]+)\)s|%)")
_RIGHT = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_numbers = itertools.count()


class Answer:
    """What came of a statement.

    Attributes:
        types: Of the columns, by PostgreSQL's numbers.
        changed: How many rows it changed.
    """

    def __init__(self, result: PGresult, values: abc.Transformer) -> None:
        self._result, self._values = result, values

    @property
    def types(self) -> list[int]:
        return [self._result.ftype(column) for column in range(self._result.nfields)]

    @property
    def changed(self) -> int:
        return self._result.command_tuples or 0

    def rows(self) -> list[tuple[Any, ...]]:
        """Its rows, their values as psycopg loads them."""
        self._values.set_pgresult(self._result)
        return self._values.load_rows(0, self._result.ntuples, tuple)


class Statement:
    """One statement; each connection that it runs on prepares it once.

    Args:
        text: With places for values written `%(name)s`, and `%%` for a percent sign.
    """

    def __init__(self, text: str) -> None:
        self._names: list[str] = []
        self._query = _PLACEHOLDER.sub(self._place, text).encode()
        self._formats = [PyFormat.AUTO] * len(self._names)
        self._known: WeakKeyDictionary[psycopg.Connection[Any], _Known] = WeakKeyDictionary()

    def _place(self, match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "%"
        if name not in self._names:
            self._names.append(name)
        return f"${self._names.index(name) + 1}"

    def run(self, connection: psycopg.Connection[Any], values: dict[str, Any]) -> Answer:
        """Run it; a transaction begins with it where the connection has any and none began.

        Raises:
            psycopg.Error: as from a cursor.
        """
        server = connection.pgconn
        if server.status != ConnStatus.OK:
            raise psycopg.OperationalError("the connection is closed")
        known = self._known.get(connection)
        if known is None:
            known = self._known[connection] = _Known(connection)
        given = [values[name] for name in self._names]
        # None among them is right, though the driver does not declare it.
        sent: Any = known.values.dump_sequence(given, self._formats)
        types = known.values.types or ()
        if not connection.autocommit and server.transaction_status == TransactionStatus.IDLE:
            _right(server.exec_(b"BEGIN"))
        name = known.names.get(types)
        if name is None:
            # A value's type may be another next time, as with numbers small and large.
            name = b"perfuse_%d" % next(_numbers)
            _right(server.prepare(name, self._query, types))
            known.names[types] = name
        return Answer(_right(server.exec_prepared(name, sent, known.values.formats)), known.values)


class _Known:
    """What is known of a statement on one connection: its names there, by types of its values."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.values: abc.Transformer = Transformer(connection)
        self.names: dict[tuple[int, ...], bytes] = {}


def _right(result: PGresult) -> PGresult:
    if result.status not in _RIGHT:
        raise error_from_result(cast(Any, result))
    return result
