"""ForwardedSpan: a span of which nothing is recorded, and OpenTelemetry's form of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from arc_telemetry.names import TRACEPARENT, TRACESTATE
from arc_telemetry.propagation import TraceParent, parse, passed_on

CURRENT: Final[str] = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""The key of the current span in an OpenTelemetry context, found out through its public API."""


def span_context(parent: TraceParent, *, remote: bool) -> SpanContext:
    """Return OpenTelemetry's form of `parent`."""
    return SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        remote,
        TraceFlags(parent.flags),
        TraceState.from_header([parent.state]) if parent.state else None,
    )


class ForwardedSpan(NonRecordingSpan):
    """An unsampled span, which nobody records: it only carries the ids of its trace onwards.

    Made for every unsampled message, so it only keeps the message's headers, and reads them when
    somebody asks, which mostly nobody does.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Stand for the span that `headers` name, by `traceparent` and perhaps `tracestate`."""
        self._headers = headers

    @property
    def header(self) -> str:
        """The `traceparent`."""
        return self._headers[TRACEPARENT]

    @property
    def state(self) -> str:
        """The `tracestate`; empty without one, or if it is too long to be passed on."""
        return passed_on(self._headers.get(TRACESTATE))

    @property
    def me(self) -> TraceParent | None:
        """The ids; None if the header is malformed."""
        return parse(self.header, self.state)

    def get_span_context(self) -> SpanContext:
        """Return the ids that travel on."""
        me = self.me
        return span_context(me, remote=True) if me is not None else INVALID_SPAN_CONTEXT

    def __repr__(self) -> str:
        return f"ForwardedSpan({self.header})"
