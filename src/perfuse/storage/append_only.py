"""Tables that only grow: triggers that refuse every change of a row, and its removal while young.

They hold whoever uses the service's own connection to account, faults of ours included. The owner
of a table may still drop its triggers.
"""

from __future__ import annotations

KEPT_DAYS = 30
"""For so long a row whose table has a moment cannot be removed, whatever a retention says."""

_MICROSECONDS = KEPT_DAYS * 86_400 * 1_000_000


def protect(dialect: str, table: str, moment: str | None = None) -> list[str]:
    """Statements that make a table append-only, for a migration.

    Args:
        dialect: `sqlite` or `postgresql`.
        table: its name.
        moment: its column with the moment of a row, in microseconds since 1970, until
            `KEPT_DAYS` after which the row stays; None where rows may be removed at any time.
    """
    refusal = f"{table} is append-only"
    if dialect == "sqlite":
        told = f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        clock = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"
        made = [f"CREATE TRIGGER {table}_unchanged BEFORE UPDATE ON {table} {told}"]
    else:
        function = f"{table}_append_only"
        told = f"EXECUTE FUNCTION {function}()"
        clock = "extract(epoch FROM clock_timestamp()) * 1000000"
        made = [
            f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{refusal}'; END $$",
            f"CREATE TRIGGER {table}_unchanged BEFORE UPDATE ON {table} FOR EACH ROW {told}",
            f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {told}",
        ]
    if moment is not None:
        made.append(
            f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW "
            f"WHEN (OLD.{moment} > {clock} - {_MICROSECONDS}) {told}"
        )
    return made


def release(dialect: str, table: str) -> list[str]:
    """Statements for after the table is dropped, which takes its triggers along."""
    return [] if dialect == "sqlite" else [f"DROP FUNCTION {table}_append_only()"]
