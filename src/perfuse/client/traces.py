"""The caller's trace, carried along: a call is part of the span that is current at its making."""

from __future__ import annotations

import sys
from typing import Any


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """`traceparent` (W3C Trace Context) of the current span, as metadata of a call.

    Empty where no span is current, and where the program does not use OpenTelemetry at all: this
    library does not import it, and looks only whether somebody did.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ()
    at = api.get_current_span().get_span_context()
    if not at.is_valid:
        return ()
    return (("traceparent", f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"),)
