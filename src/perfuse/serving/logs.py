"""Logs: one line an event, with the id of the call in which it happened, never a payload."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

request_id: ContextVar[str | None] = ContextVar("perfuse_request_id", default=None)
"""The id of the call that this code works for; threads of `Call.in_thread` see it too."""


def configure(
    level: str = "info",
    form: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send what structlog and the standard library log to one stream, in one form.

    Args:
        level: The lowest level that is written: debug, info, warning, error or critical.
        form: One JSON object a line, or lines for people.
        stream: Standard error by default, since commands answer on standard output.
    """
    stream = stream or sys.stderr
    lines = _Lines(stream)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    render: Processor
    if form == "console":
        render = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        render = _json
    structlog.configure(
        processors=[_stamp, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _stamp],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level=max(threshold, logging.INFO), handlers=[lines], force=True)


class _Lines(logging.Handler):
    """Writes lines, structlog's and the standard library's.

    A disk that is full, or a reader that is gone, loses a line and does not stop the service.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._whole = threading.Lock()

    def write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError), self._whole:
            self._stream.write(line + "\n")
            self._stream.flush()

    # What structlog calls.
    debug = info = warning = error = critical = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))


# Made once: json.dumps with a default makes an encoder for every line.
_encode = json.JSONEncoder(default=repr).encode


def _json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return _encode(event)


def _stamp(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """What every line has, in one step: a line is written for every call."""
    event["level"] = "error" if name == "exception" else name
    event["timestamp"] = datetime.now(UTC).isoformat()
    if "request_id" not in event:
        known = request_id.get()
        if known is not None:
            event["request_id"] = known
    if "exc_info" in event:
        # A plain traceback: structlog's dictionaries would carry local variables, thus payloads.
        event = structlog.processors.format_exc_info(logger, name, event)
    return event
