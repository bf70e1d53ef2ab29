"""Logs: one line an event, with the id of the call in which it happened, never a payload."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from contextvars import ContextVar
from typing import Literal, TextIO, cast

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
    stream = cast(TextIO, _Enduring(stream or sys.stderr))
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        _add_request_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain tracebacks: structlog's dictionaries would carry local variables, thus payloads.
        structlog.processors.format_exc_info,
    ]
    render: Processor
    if form == "console":
        render = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        render = structlog.processors.JSONRenderer(serializer=_json)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level=max(threshold, logging.INFO), handlers=[handler], force=True)


class _Enduring:
    """A stream whose faults, a full disk or a reader that is gone, do not stop the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.isatty = stream.isatty

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


# Made once: json.dumps with a default makes an encoder for every line.
_encode = json.JSONEncoder(default=repr).encode


def _json(event: EventDict, **_: object) -> str:
    return _encode(event)


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    known = request_id.get()
    if known is not None:
        event.setdefault("request_id", known)
    return event
