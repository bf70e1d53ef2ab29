"""Statements that are run again and again, handed to the database's driver as it wants them.

For a statement that it knows SQLAlchemy takes 60 to 110 microseconds each time, longer than the
database does for most of ours. Here the text, the order of the values and the conversions of their
types are worked out once for each kind of database. Everything else stays SQLAlchemy's: how the
statement is written, which connection and transaction it runs in, and what a fault becomes.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Executable

Convert = Callable[[Any], Any]


class Prepared:
    """A statement whose values have names: `bindparam`s, or the columns of an insert.

        _NUMBERED = Prepared(select(T).where(T.c.number == bindparam("number")))
        row = _NUMBERED.first(connection, number=7)

    Rows are named tuples with the columns' keys.

    Args:
        statement: Select, insert, update or delete.
        columns: That an insert gives values to.
    """

    def __init__(self, statement: Executable, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = None if columns is None else list(columns)
        self._compiled: dict[str, _Compiled] = {}

    def all(self, connection: Connection, **values: Any) -> list[Any]:
        """The rows that it gives.

        Raises:
            DBAPIError: as from `Connection.execute`.
        """
        rows: list[Any] = self._perform(connection, values, _Compiled.rows)
        return rows

    def first(self, connection: Connection, **values: Any) -> Any | None:
        """The first row, None where there is none; for statements that give one at most."""
        rows = self.all(connection, **values)
        return rows[0] if rows else None

    def run(self, connection: Connection, **values: Any) -> int:
        """How many rows it changed."""
        changed: int = self._perform(connection, values, _rowcount)
        return changed

    def _perform(
        self,
        connection: Connection,
        values: dict[str, Any],
        take: Callable[[_Compiled, Any], Any],
    ) -> Any:
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = _Compiled(self._statement, self._columns, dialect)
            self._compiled[dialect.name] = compiled
        parameters = compiled.parameters(values)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.text, parameters)
            return take(compiled, cursor)
        except dialect.loaded_dbapi.Error as error:
            # As where SQLAlchemy runs a statement: it drops connections that are dead, and raises
            # its own kind of error.
            connection._handle_dbapi_exception(error, compiled.text, parameters, cursor, None)
            raise
        finally:
            cursor.close()


class _Compiled:
    """A statement for one kind of database."""

    def __init__(self, statement: Executable, columns: list[str] | None, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=columns)  # type: ignore[attr-defined]
        self.text: str = compiled.string
        self._dialect = dialect
        self._constants: dict[str, Any] = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        self._order: list[str] | None = compiled.positiontup
        self._binds: dict[str, Convert] = {
            name: convert
            for name, bind in compiled.binds.items()
            if (convert := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        given: Any = statement
        columns_given = list(given.exported_columns)
        self._types = [column.type for column in columns_given]
        keys = [column.key for column in columns_given]
        self._row: Any = namedtuple("Row", keys)  # type: ignore[misc]
        self._results: list[tuple[int, Convert]] | None = None

    def parameters(self, values: dict[str, Any]) -> Any:
        """The values as the driver takes them."""
        for name, convert in self._binds.items():
            if name in values:
                values[name] = convert(values[name])
        if self._constants:
            values = self._constants | values
        return values if self._order is None else [values[name] for name in self._order]

    def rows(self, cursor: Any) -> list[Any]:
        """The rows that a cursor gives, their values converted."""
        if self._results is None:
            self._results = self._converters(cursor.description)
        make = self._row._make
        if not self._results:
            return [make(row) for row in cursor.fetchall()]
        rows = []
        for each in cursor.fetchall():
            row = list(each)
            for index, convert in self._results:
                row[index] = convert(row[index])
            rows.append(make(row))
        return rows

    def _converters(self, description: Sequence[Any]) -> list[tuple[int, Convert]]:
        found = []
        for index, (kind, column) in enumerate(zip(self._types, description, strict=True)):
            convert = kind.dialect_impl(self._dialect).result_processor(self._dialect, column[1])
            if convert is not None:
                found.append((index, convert))
        return found


def _rowcount(_: _Compiled, cursor: Any) -> int:
    changed: int = cursor.rowcount
    return changed
