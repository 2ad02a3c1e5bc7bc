"""The publish middleware: a span, a duration, and the ids of the trace in the message's headers."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, get_current_span

from arc_bus import replying
from arc_bus.middleware import Operation, PublishMiddleware, Sender
from arc_bus.transport import Delivery
from arc_telemetry import names
from arc_telemetry.baggage import Baggage
from arc_telemetry.destinations import REMEMBERED, Destinations
from arc_telemetry.propagation import inject, parse, trace_id_of
from arc_telemetry.span import parent_of
from arc_telemetry.spans import fail, name_message
from arc_telemetry.timing import BusMetrics, Timing, error_type, labels_of
from arc_telemetry.tracing import Recipe, SpanStarter

if TYPE_CHECKING:
    from arc_bus.envelope import Envelope

LONGEST_NAME = 64
"""Characters of an error's class name that another service may put into our labels."""


class Sending(msgspec.Struct, frozen=True, eq=False):
    """One destination, looked up: its spans and its durations."""

    recipe: Recipe
    timing: Timing


class PublishTracing:
    """Wraps a publish or request pipeline."""

    def __init__(
        self,
        spans: SpanStarter,
        metrics: BusMetrics,
        destinations: Destinations,
        operation: Operation,
        baggage: Baggage | None = None,
    ) -> None:
        """Start spans with `spans`, count into `metrics`, and name places by `destinations`."""
        self._spans = spans
        self._metrics = metrics
        self._destinations = destinations
        self._operation = names.PUBLISH if operation is Operation.PUBLISH else names.REQUEST
        self._kind = SpanKind.PRODUCER if operation is Operation.PUBLISH else SpanKind.CLIENT
        self._baggage = baggage
        self._known: dict[str, Sending] = {}

    def middleware(self) -> PublishMiddleware:
        """Return the wrapper."""
        return self._wrap

    def _learn(self, destination: str) -> Sending:
        place = self._destinations.find(destination)
        labels = labels_of(place, self._operation, names.TYPE_SEND)
        recipe = Recipe(f"{self._operation} {place.label}", self._kind, labels)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        sending = self._known[destination] = Sending(recipe, self._metrics.sending(labels))
        return sending

    def _start(self, recipe: Recipe, envelope: Envelope[object]) -> Span:
        """Start the span below the one that is current, else below the one the headers name."""
        given = envelope.headers.get(names.TRACEPARENT)
        named = parse(given, envelope.headers.get(names.TRACESTATE)) if given else None
        current = get_current_span()
        if current is not INVALID_SPAN:
            return self._spans.start(recipe, parent_of(current), linked=named)
        if named is not None:
            return self._spans.start(recipe, named, remote=True)
        trace_id = trace_id_of(envelope.trace_id) if self._spans.names_roots else None
        return self._spans.start(recipe, None, trace_id=trace_id or "")

    def _wrap(self, send: Sender) -> Sender:
        known, baggage = self._known, self._baggage

        async def traced(envelope: Envelope[object]) -> Delivery | None:
            sending = known.get(envelope.destination) or self._learn(envelope.destination)
            span = self._start(sending.recipe, envelope)
            recording = span.is_recording()
            me = parent_of(span)
            if me is not None:
                headers = inject(envelope.headers, me)
                said = envelope.trace_id if _says_trace_id(envelope.payload) else me.trace_id
                envelope = msgspec.structs.replace(envelope, headers=headers, trace_id=said)
            if baggage is not None:
                carried = baggage.inject(envelope.headers)
                envelope = msgspec.structs.replace(envelope, headers=carried)
            if recording:
                name_message(span, sending.recipe, envelope.message_id)
            began = perf_counter()
            try:
                reply = await send(envelope)
            except BaseException as error:
                sending.timing.failed(error_type(error)).observe(perf_counter() - began)
                fail(span, error)
                raise
            else:
                refused = _told_error(reply) if reply is not None else None
                timing = sending.timing.ok if refused is None else sending.timing.failed(refused)
                timing.observe(perf_counter() - began)
                if refused is not None:
                    span.set_attribute(names.ERROR_TYPE, refused)
                    span.set_status(StatusCode.ERROR)
                return reply
            finally:
                if recording:
                    span.end()

        return traced


def _told_error(reply: Delivery) -> str | None:
    """Return the class of what the handler on the other side raised, if the reply says so.

    It is the other side's word, so what is no class name is not taken for a label.
    """
    told = reply.headers.get(replying.ERROR)
    if told is None:
        return None
    return told if told.isidentifier() and len(told) <= LONGEST_NAME else names.ERROR_OTHER


def _says_trace_id(payload: object) -> bool:
    """Return whether the payload has a `trace_id` of its own, which the envelope then repeats."""
    if isinstance(payload, dict):
        return names.TRACE_ID in payload
    return getattr(payload, names.TRACE_ID, None) is not None
