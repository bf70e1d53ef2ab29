"""How a command that does not succeed says so: one sentence, or one JSON object, never a trace."""

from __future__ import annotations

import json
import sys

import typer

from perfuse.cli.exits import Exit, Failure, exit_of
from perfuse.cli.output import remark
from perfuse.errors import InvalidArgument, PerfuseError

# The library's usage errors have no public root of their own.
Usage = typer.BadParameter.__mro__[1]


def tell(error: Exception, *, as_json: bool) -> Exit:
    """Print what went wrong to the standard error.

    Args:
        error: as a command raised it.
        as_json: as an object with reason, message, violations, resource and retry_after.

    Returns:
        The status to end with.
    """
    reason, message, status = _read(error)
    if not message:  # The help has been printed in its place.
        return status
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    resource = error.resource if isinstance(error, PerfuseError | Failure) else None
    retry_after = error.retry_after if isinstance(error, PerfuseError) else None
    if as_json:
        told = {
            "reason": reason,
            "message": message,
            "violations": [{"field": field, "description": text} for field, text in violations],
            "resource": resource,
            "retry_after": retry_after,
        }
        sys.stderr.write(json.dumps(told, ensure_ascii=False) + "\n")
    else:
        later = "" if retry_after is None else f" (again in {retry_after:.3g} s)"
        remark(f"perfuse: {' '.join(message.split())}{later}")
    return status


def _read(error: Exception) -> tuple[str, str, Exit]:
    """Reason, message, and status."""
    if isinstance(error, PerfuseError):
        return error.reason, str(error), exit_of(error)
    if isinstance(error, Failure):
        return error.reason, str(error), error.exit
    if isinstance(error, Usage):
        where = getattr(error, "ctx", None)
        help_at = f". See {where.command_path} --help" if where is not None else ""
        said = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        return "USAGE", said and f"{said}{help_at}", Exit.USAGE
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return "FILE", f"{place}{error.strerror or error}", Exit.REFUSED
    return (
        "INTERNAL",
        f"a fault of Perfuse itself, {type(error).__name__}: {error}. With PERFUSE_TRACEBACK=1 "
        "the command shows where; please report it",
        Exit.REFUSED,
    )
