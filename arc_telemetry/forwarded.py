"""ForwardedSpan: a span of which nothing is recorded, and OpenTelemetry's form of ids."""

from __future__ import annotations

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

from arc_telemetry.propagation import TraceParent, parse

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
    """An unsampled span, which nobody records: it only carries the ids of its trace onwards."""

    def __init__(self, header: str, state: str = "") -> None:
        """Stand for the span that `header`, a valid `traceparent`, and `tracestate` name."""
        self.header = header
        self.state = state

    @property
    def me(self) -> TraceParent | None:
        """The ids; read when somebody asks, for mostly nobody does."""
        return parse(self.header, self.state)

    def get_span_context(self) -> SpanContext:
        """Return the ids that travel on."""
        me = self.me
        return span_context(me, remote=True) if me is not None else INVALID_SPAN_CONTEXT

    def __repr__(self) -> str:
        return f"ForwardedSpan({self.header})"
