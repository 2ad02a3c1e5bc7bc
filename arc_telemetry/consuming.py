"""The consume middleware: a span and a duration for each delivery, an event a failed attempt.

On the path of every message, so it is written for cost: what can be known at start is looked up
once a subscription, and an unsampled message makes no OpenTelemetry object but the one that
carries its ids into the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from time import perf_counter, time, time_ns
from typing import TYPE_CHECKING, Literal

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, get_current_span

from arc_bus.errors import PayloadError
from arc_bus.message import current_message
from arc_bus.middleware import ConsumeMiddleware, Handler, Slot
from arc_bus.notice import Notice, NoticeKind
from arc_bus.transport import Verdict
from arc_telemetry import names
from arc_telemetry.ambient import AMBIENT
from arc_telemetry.baggage import Baggage
from arc_telemetry.destinations import Place
from arc_telemetry.forwarded import CURRENT
from arc_telemetry.forwarded_context import ForwardedContext
from arc_telemetry.metrics import FOLDED
from arc_telemetry.names import TRACEPARENT
from arc_telemetry.propagation import extract, inherited, trace_id_of
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import MessageSpan
from arc_telemetry.spans import fail, name_message
from arc_telemetry.stamp import seconds_since
from arc_telemetry.timing import BusMetrics, error_type, group_labels, labels_of
from arc_telemetry.tracing import SpanStarter

if TYPE_CHECKING:
    from opentelemetry.util.types import AnyValue

    from arc_bus.message import Message
    from arc_bus.policy import Subscription

Relation = Literal["parent", "link"]
"""Whether a `process` span continues its message's trace, or is a trace of its own linked to it."""

HOP_PAUSE = 0.05
"""Seconds after which another message's time on the way is measured: its envelope is decoded then.

So it is after every `FOLDED` messages: where few come each has its figure, and where many come
their number decides, as in a fair sample.
"""


class ConsumeTracing:
    """Wraps one subscription's handler: once a delivery, and once an attempt for its failures."""

    def __init__(
        self,
        spans: SpanStarter,
        metrics: BusMetrics,
        place: Place,
        subscription: Subscription,
        *,
        relation: Relation = "parent",
        baggage: Baggage | None = None,
    ) -> None:
        """Name spans and metrics by the subscription's pattern, never by a concrete subject."""
        labels = labels_of(place, names.PROCESS, names.TYPE_PROCESS)
        labels |= group_labels(subscription.group, place.system)
        name = f"{names.PROCESS} {place.label}"
        self._consumer = Recipe(name, SpanKind.CONSUMER, labels)
        self._server = Recipe(name, SpanKind.SERVER, labels)
        self._timing = metrics.processing(labels)
        self._hop = metrics.hop(labels)
        self._metrics = metrics
        self._labels = labels
        self._spans = spans
        self._linked_only = relation == "link"
        self._baggage = baggage
        sampling = spans.sampling
        # Whether what its publisher did not record is never recorded here.
        self._forwards = (
            relation == "parent"
            and sampling is not None
            and (sampling.follows or sampling.bound == 0)
        )
        self._recovered: set[Message] = set()

    def middleware(self) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        """Return both wrappers with their slots."""
        return ((Slot.DELIVERY, self._wrap_delivery), (Slot.ATTEMPT, self._wrap_attempt))

    def _start(self, message: Message) -> Span:
        delivery = message.delivery
        recipe = self._consumer if delivery.reply_to is None else self._server
        span = self._place_in_trace(message, recipe)
        if delivery.id and span.is_recording():
            name_message(span, delivery.id)
        return span

    def _place_in_trace(self, message: Message, recipe: Recipe) -> Span:
        creator = extract(message.delivery.headers)
        if creator is None:
            older = _older_trace(message)
            if self._linked_only:
                return self._spans.start(recipe, None, linked=inherited(older) if older else None)
            return self._spans.start(recipe, None, trace_id=older)
        if self._linked_only:
            return self._spans.start(recipe, None, linked=creator)
        return self._spans.start(recipe, creator, remote=True, linked=creator)

    def _wrap_delivery(self, handler: Handler) -> Handler:
        ok, now, ambient = self._timing.ok, perf_counter, AMBIENT
        note, waiting = ok.note, ok.waiting
        forwards, baggage, rarely = self._forwards, self._baggage, self._rarely
        begun = ended = 0
        hop_due = 0.0
        self._metrics.in_flight(self._labels, lambda: begun - ended)

        async def traced(message: Message) -> object:
            nonlocal begun, ended, hop_due
            headers = message.delivery.headers
            given = headers.get(TRACEPARENT)
            around = ambient.get()
            span: Span | None = None
            # The last digit of a `traceparent` is even where its publisher did not record it.
            dropped = forwards and given is not None and len(given) == 55 and given[54] in _EVEN
            inside: Context
            if dropped and not around:
                inside = forwarded = ForwardedContext()
                forwarded.headers = headers
            else:
                span = self._start(message)
                inside = Context({**around, CURRENT: span})
            begun += 1
            token = ambient.set(inside if baggage is None else baggage.extract(headers, inside))
            began = now()
            try:
                result = await handler(message)
                if message.failure is not None:
                    self._conclude(span, message, now() - began)
                    return result
                note(now() - began)
                if began > hop_due or len(waiting) >= FOLDED:
                    hop_due = began + HOP_PAUSE
                    rarely(message, began)
                if span is not None:
                    self._describe(span, message, None)
                return result
            except BaseException as error:
                self._timing.failed(error_type(error)).observe(now() - began)
                self._recovered.discard(message)
                self._describe(span, message, error)
                raise
            finally:
                ambient.reset(token)
                ended += 1

        return traced

    def _conclude(self, span: Span | None, message: Message, seconds: float) -> None:
        """Deal with a message of which at least one attempt failed."""
        failure = message.failure
        if message in self._recovered:
            self._recovered.discard(message)
            failure = None
        cell = self._timing.ok if failure is None else self._timing.failed(error_type(failure))
        cell.observe(seconds)
        self._describe(span, message, failure)

    def _wrap_attempt(self, handler: Handler) -> Handler:
        """Note retries when they begin, and which messages one of them has saved."""

        async def again(message: Message, before: BaseException) -> object:
            note(names.EVENT_RETRY, message, before)
            result = await handler(message)
            self._recovered.add(message)
            return result

        def attempt(message: Message) -> Awaitable[object]:
            # Not a coroutine itself: of a message that needs no retry it must cost nothing.
            before = message.failure
            return handler(message) if before is None else again(message, before)

        return attempt

    def _describe(self, span: Span | None, message: Message, failure: BaseException | None) -> None:
        """End the span, with what became of the message if somebody records it."""
        if span is None or not span.is_recording():
            return
        if message.redelivered:
            span.set_attribute(names.ARC_ATTEMPTS, message.attempt)
            span.set_attribute(names.ARC_REDELIVERED, message.delivery.attempt > 1)
        if failure is not None:
            fail(span, failure)
        if message.dead:
            span.add_event(names.EVENT_DEAD_LETTER, {names.ARC_ATTEMPTS: message.attempt})
        verdict = message.verdict
        if verdict is Verdict.ACK and isinstance(span, MessageSpan):
            span.acked = time_ns()
        elif verdict is not None:
            span.add_event(names.EVENT_SETTLE, {names.ARC_VERDICT: verdict.value})
        span.end()

    def _rarely(self, message: Message, began: float) -> None:
        """Sort the durations, and observe how old this message was when its handling began."""
        self._timing.ok.fold()
        try:
            published = message.envelope.timestamp
        except PayloadError:
            return
        age = seconds_since(published, time() - (perf_counter() - began))
        if age is not None:
            self._hop.observe(age)


_EVEN = "02468ace"
"""Last digits of the flags of a `traceparent` that is not sampled."""


def _older_trace(message: Message) -> str:
    """Return the trace id that an older service wrote into the envelope; empty without one."""
    try:
        return trace_id_of(message.envelope.trace_id) or ""
    except PayloadError:
        return ""  # it will fail again in the handler's attempt, and go to the dead letters


def note(event: str, message: Message, error: BaseException) -> None:
    """Add an event about an attempt of `message` to the current span, if that is recorded."""
    span = get_current_span()
    if span.is_recording():
        described: dict[str, AnyValue] = {
            names.ARC_ATTEMPT: message.attempt,
            names.ERROR_TYPE: error_type(error),
        }
        span.add_event(event, described)


def note_failed_attempt(notice: Notice) -> None:
    """Add an event to the span of a message whose handler failed and will be tried again.

    The bus reports it in that message's own context, so its span is the current one.
    """
    message = current_message.get()
    if notice.kind is NoticeKind.RETRIED and message is not None and notice.error is not None:
        note(names.EVENT_ATTEMPT_FAILED, message, notice.error)
