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
        compiled = self._of(connection.dialect)
        rows: list[Any] = self._perform(connection, compiled, values, compiled.rows)
        return rows

    def first(self, connection: Connection, **values: Any) -> Any | None:
        """The first row, None where there is none; for statements that give one at most."""
        rows = self.all(connection, **values)
        return rows[0] if rows else None

    def run(self, connection: Connection, **values: Any) -> int:
        """How many rows it changed."""
        compiled = self._of(connection.dialect)
        changed: int = self._perform(connection, compiled, values, compiled.changed)
        return changed

    def _of(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            kind = _OnPostgreSQL if dialect.driver == "psycopg" else _Compiled
            compiled = self._compiled[dialect.name] = kind(self._statement, self._columns, dialect)
        return compiled

    def _perform(
        self,
        connection: Connection,
        compiled: _Compiled,
        values: dict[str, Any],
        take: Callable[[Any], Any],
    ) -> Any:
        converted = compiled.converted(values)
        driver: Any = connection.connection.dbapi_connection
        try:
            return compiled.run(driver, converted, take)
        except connection.dialect.loaded_dbapi.Error as error:
            # As where SQLAlchemy runs a statement: it drops connections that are dead, and raises
            # its own kind of error.
            connection._handle_dbapi_exception(error, compiled.text, converted, None, None)
            raise


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

    def converted(self, values: dict[str, Any]) -> dict[str, Any]:
        """All values, by name, as the driver takes them."""
        for name, convert in self._binds.items():
            if name in values:
                values[name] = convert(values[name])
        return self._constants | values if self._constants else values

    def run(self, driver: Any, values: dict[str, Any], take: Callable[[Any], Any]) -> Any:
        """Run it on a connection of the driver, and take from what comes of it."""
        order = self._order
        cursor = driver.cursor()
        try:
            cursor.execute(self.text, values if order is None else [values[name] for name in order])
            return take(cursor)
        finally:
            cursor.close()

    def changed(self, cursor: Any) -> int:
        """How many rows were changed."""
        count: int = cursor.rowcount
        return count

    def rows(self, cursor: Any) -> list[Any]:
        """The rows that a cursor gives, their values converted."""
        return self._rows(cursor.fetchall(), lambda: [each[1] for each in cursor.description])

    def _rows(self, given: Sequence[Any], types: Callable[[], Sequence[Any]]) -> list[Any]:
        if self._results is None:
            self._results = self._converters(types())
        make = self._row._make
        if not self._results:
            return [make(row) for row in given]
        rows = []
        for each in given:
            row = list(each)
            for index, convert in self._results:
                row[index] = convert(row[index])
            rows.append(make(row))
        return rows

    def _converters(self, types: Sequence[Any]) -> list[tuple[int, Convert]]:
        found = []
        for index, (kind, told) in enumerate(zip(self._types, types, strict=True)):
            convert = kind.dialect_impl(self._dialect).result_processor(self._dialect, told)
            if convert is not None:
                found.append((index, convert))
        return found


class _OnPostgreSQL(_Compiled):
    """A statement that libpq runs."""

    def __init__(self, statement: Executable, columns: list[str] | None, dialect: Dialect) -> None:
        from perfuse.storage.prepared_postgresql import Statement

        super().__init__(statement, columns, dialect)
        self._server = Statement(self.text)

    def run(self, driver: Any, values: dict[str, Any], take: Callable[[Any], Any]) -> Any:
        return take(self._server.run(driver, values))

    def changed(self, answer: Any) -> int:
        count: int = answer.changed
        return count

    def rows(self, answer: Any) -> list[Any]:
        return self._rows(answer.rows(), lambda: answer.types)
