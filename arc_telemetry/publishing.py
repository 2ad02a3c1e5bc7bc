"""The publish middleware: a span, a duration, and the ids of the trace in the message's headers."""

from __future__ import annotations

import re
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from opentelemetry.context import get_current
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from arc_bus import replying
from arc_bus.middleware import Operation, PublishMiddleware, Sender
from arc_bus.transport import Delivery
from arc_telemetry import names
from arc_telemetry.baggage import Baggage
from arc_telemetry.destinations import REMEMBERED, Destinations
from arc_telemetry.forwarded import CURRENT, ForwardedSpan
from arc_telemetry.names import TRACEPARENT, TRACESTATE
from arc_telemetry.propagation import inject, parse, trace_id_of, unsampled
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import parent_of
from arc_telemetry.spans import fail, name_message
from arc_telemetry.timing import BusMetrics, Timing, error_type, labels_of
from arc_telemetry.tracing import ALL, Sampling, SpanStarter

if TYPE_CHECKING:
    from arc_bus.envelope import Envelope

_TRACE_ID = re.compile(r"(?!0{16})[0-9a-f]{32}").fullmatch

LONGEST_NAME = 64
"""Characters of an error's class name that another service may put into our labels."""


class Sending:
    """One destination, looked up: its spans, its durations, and how to observe a success."""

    __slots__ = ("observe", "recipe", "timing")

    def __init__(self, recipe: Recipe, timing: Timing) -> None:
        """Take both."""
        self.recipe = recipe
        self.timing = timing
        self.observe = timing.ok.observe


class PublishTracing:
    """Wraps a publish or request pipeline.

    What is not sampled goes a short way of its own: of a message's 4 µs there is none to spare.
    """

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
        self._sampling = spans.sampling or Sampling(ALL, follows=False)
        self._never = self._sampling.bound == 0
        self._names_roots = spans.names_roots

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

    def _unsampled(self, envelope: Envelope[object], current: Span | None) -> str | None:
        """Return the `traceparent` to send if this will certainly not be recorded, else None."""
        if TRACEPARENT in envelope.headers or self._baggage is not None:
            return None
        if current is None or current is INVALID_SPAN:
            trace_id = envelope.trace_id
            if len(trace_id) == 32 and (self._never or self._drops(trace_id)):
                return f"00-{trace_id}-{trace_id[:16]}-00"
        elif type(current) is ForwardedSpan and self._sampling.follows:
            return current.header if unsampled(current.header) else None
        return None

    def _drops(self, trace_id: str) -> bool:
        named = self._names_roots and _TRACE_ID(trace_id) is not None
        return named and self._sampling.drops_root(trace_id)

    def _start(self, recipe: Recipe, envelope: Envelope[object], current: Span | None) -> Span:
        """Start the span below the one that is current, else below the one the headers name."""
        given = envelope.headers.get(TRACEPARENT)
        named = parse(given, envelope.headers.get(TRACESTATE)) if given else None
        parent = parent_of(current) if current is not None else None
        if parent is not None:
            return self._spans.start(recipe, parent, linked=named)
        if named is not None:
            return self._spans.start(recipe, named, remote=True)
        trace_id = trace_id_of(envelope.trace_id) if self._names_roots else None
        return self._spans.start(recipe, None, trace_id=trace_id or "")

    def _wrap(self, send: Sender) -> Sender:
        known, find_unsampled, now = self._known, self._unsampled, perf_counter

        async def traced(envelope: Envelope[object]) -> Delivery | None:
            sending = known.get(envelope.destination) or self._learn(envelope.destination)
            current: Any = get_current().get(CURRENT)
            traceparent = find_unsampled(envelope, current)
            if traceparent is None:
                return await self._recorded(send, sending, envelope, current)
            headers = {**envelope.headers, TRACEPARENT: traceparent}
            if type(current) is ForwardedSpan:
                if current.state:
                    headers[TRACESTATE] = current.state
                if not _says_trace_id(envelope.payload):
                    envelope = replace(envelope, trace_id=traceparent[3:35])
            began = now()
            try:
                reply = await send(replace(envelope, headers=headers))
            except BaseException as error:
                sending.timing.failed(error_type(error)).observe(now() - began)
                raise
            told = None if reply is None else _told_error(reply)
            (sending.observe if told is None else sending.timing.failed(told).observe)(
                now() - began
            )
            return reply

        return traced

    async def _recorded(
        self, send: Sender, sending: Sending, envelope: Envelope[object], current: Span | None
    ) -> Delivery | None:
        """Send with a span, which the sampler may still drop."""
        span = self._start(sending.recipe, envelope, current)
        me = parent_of(span)
        if me is not None:
            headers = inject(envelope.headers, me)
            said = envelope.trace_id if _says_trace_id(envelope.payload) else me.trace_id
            envelope = replace(envelope, headers=headers, trace_id=said)
        if self._baggage is not None:
            envelope = replace(envelope, headers=self._baggage.inject(envelope.headers))
        if recording := span.is_recording():
            name_message(span, envelope.message_id)
        began = perf_counter()
        try:
            reply = await send(envelope)
            told = _told_error(reply) if reply is not None else None
            timing = sending.timing.ok if told is None else sending.timing.failed(told)
            timing.observe(perf_counter() - began)
            if told is not None:
                span.set_attribute(names.ERROR_TYPE, told)
                span.set_status(StatusCode.ERROR)
            return reply
        except BaseException as error:
            sending.timing.failed(error_type(error)).observe(perf_counter() - began)
            fail(span, error)
            raise
        finally:
            if recording:
                span.end()


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
