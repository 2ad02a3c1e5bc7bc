"""What the spans of publishing and of processing have in common."""

from __future__ import annotations

import asyncio

from opentelemetry.trace import Span, StatusCode

from arc_telemetry import names
from arc_telemetry.span import MessageSpan
from arc_telemetry.timing import error_type


def fail(span: Span, error: BaseException) -> None:
    """Note on `span` that it ended with `error`: its type, never its text, which users may hold.

    A cancellation is no failure: it is an attribute, and the status stays unset.
    """
    if isinstance(error, asyncio.CancelledError):
        span.set_attribute(names.ARC_CANCELLED, True)
        return
    span.set_attribute(names.ERROR_TYPE, error_type(error))
    span.set_status(StatusCode.ERROR)


def name_message(span: Span, message_id: str) -> None:
    """Put the message's id on a recording `span`."""
    if isinstance(span, MessageSpan):
        span.message_id = message_id
    else:
        span.set_attribute(names.MESSAGE_ID, message_id)
