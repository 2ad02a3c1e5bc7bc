"""The publish middleware: a span, a duration, and the ids of the trace in the message's headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from arc_bus import replying
from arc_bus.envelope import new_trace_id
from arc_bus.middleware import Operation, PublishMiddleware, Sender
from arc_bus.transport import Delivery
from arc_telemetry import names
from arc_telemetry.ambient import AMBIENT
from arc_telemetry.baggage import Baggage
from arc_telemetry.destinations import REMEMBERED, Destinations
from arc_telemetry.forwarded import CURRENT, ForwardedSpan
from arc_telemetry.metrics import FOLDED
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

_NOBODY = f"-{new_trace_id()[:16]}-00"
"""How the `traceparent` of a root that nobody records ends: a span of this process, unsampled."""

LONGEST_NAME = 64
"""Characters of an error's class name that another service may put into our labels."""


class Sending:
    """One destination, looked up: its spans, its durations, and how to note a success."""

    __slots__ = ("note", "recipe", "timing", "waiting")

    def __init__(self, recipe: Recipe, timing: Timing) -> None:
        """Take both."""
        self.recipe = recipe
        self.timing = timing
        self.note = timing.ok.note
        self.waiting = timing.ok.waiting


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
        self._follows = self._sampling.follows
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

    def _forwarded(self, current: Span) -> dict[str, str] | None:
        """Return the headers that name the trace of a handler which is certainly not recorded."""
        if type(current) is not ForwardedSpan or not self._follows:
            return None
        traceparent, state = current.header, current.state
        if not unsampled(traceparent):
            return None
        return (
            {TRACEPARENT: traceparent, TRACESTATE: state} if state else {TRACEPARENT: traceparent}
        )

    def _drops(self, trace_id: str) -> bool:
        """Return whether a root of this trace is certainly not recorded."""
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
        known, now, ambient = self._known, perf_counter, AMBIENT
        never, drops, plain = self._never, self._drops, self._baggage is None

        async def traced(envelope: Envelope[object]) -> Delivery | None:
            sending = known.get(envelope.destination) or self._learn(envelope.destination)
            current: Any = ambient.get().get(CURRENT)
            given = envelope.headers
            written: Mapping[str, str] | None = None
            if TRACEPARENT not in given and plain:
                if current is None or current is INVALID_SPAN:
                    trace_id = envelope.trace_id
                    if len(trace_id) == 32 and (never or drops(trace_id)):
                        written = {TRACEPARENT: f"00-{trace_id}{_NOBODY}"}
                elif (written := self._forwarded(current)) is not None:
                    envelope = _joined(envelope, written)
            if written is None:
                return await self._recorded(send, sending, envelope, current)
            began = now()
            try:
                headers = {**given, **written} if given else written
                reply = await send(replace(envelope, headers=headers))
            except BaseException as error:
                sending.timing.failed(error_type(error)).observe(now() - began)
                raise
            if reply is not None and (told := _told_error(reply)) is not None:
                sending.timing.failed(told).observe(now() - began)
                return reply
            sending.note(now() - began)
            if len(sending.waiting) >= FOLDED:
                sending.timing.ok.fold()
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


def _joined(envelope: Envelope[object], written: Mapping[str, str]) -> Envelope[object]:
    """Return `envelope` with the id of the trace that its headers will name."""
    if _says_trace_id(envelope.payload):
        return envelope
    return replace(envelope, trace_id=written[TRACEPARENT][3:35])


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
