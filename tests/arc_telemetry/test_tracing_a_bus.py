"""The middleware on a whole bus: spans, ids in headers, metrics, without a collector."""

# More than 300 lines, because each case of one bus is read beside the others.

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import cast

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_OFF
from opentelemetry.trace import get_current_span

from arc_bus import Bus, Envelope, Message, Reject, Retry, Subscription, hookimpl
from arc_bus.errors import ArcBusError, NoResponders, PublishRejected, RemoteError
from arc_bus.middleware import Operation, PublishMiddleware, Sender
from arc_bus.transport import Delivery, Outgoing
from arc_telemetry import Settings
from arc_telemetry.destinations import MAX_LABELS
from arc_telemetry.testing import Recorder

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def bus_with(recorder: Recorder) -> Bus:
    return Bus("tester", routes={"": "memory://"}, plugins=[recorder])


async def test_a_handler_stands_below_its_publisher_and_its_own_publish_below_it() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("orders.*.created", group="billing")
    async def bill(order: dict[str, object]) -> None:
        with recorder.trace_span("reckon"):
            await bus.publish("invoices.made", {"for": 1})

    async with bus:
        await bus.publish("orders.7.created", {"a": 1})
        await recorder.ended("process orders.*.created")

    root = recorder.span("publish orders.*.created")
    handled = recorder.span("process orders.*.created")
    inner = recorder.span("reckon")
    onward = recorder.span("publish invoices.made")
    assert (root.kind, handled.kind, inner.kind) == ("producer", "consumer", "internal")
    assert root.parent_id == ""
    assert recorder.parent(handled) == root
    assert handled.links == ((root.trace_id, root.span_id),)
    assert recorder.parent(inner) == handled
    assert recorder.parent(onward) == inner
    assert {span.trace_id for span in recorder.spans} == {root.trace_id}
    assert root.service == "tester"
    assert handled.attributes["messaging.system"] == "memory"
    assert handled.attributes["messaging.operation.name"] == "process"
    assert handled.attributes["messaging.operation.type"] == "process"
    assert handled.attributes["messaging.destination.template"] == "orders.*.created"
    assert "messaging.destination.name" not in handled.attributes
    assert handled.attributes["messaging.consumer.group.name"] == "billing"
    assert handled.attributes["messaging.message.id"] == root.attributes["messaging.message.id"]
    assert root.attributes["messaging.operation.type"] == "send"


async def test_the_envelope_and_the_headers_name_the_publishers_span() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)
    got: asyncio.Queue[Envelope[dict[str, object]]] = asyncio.Queue()

    @bus.subscribe("a.b")
    async def keep(event: Envelope[dict[str, object]]) -> None:
        got.put_nowait(event)

    async with bus:
        await bus.publish("a.b", {"x": 1}, headers={"Mine": "kept"})
        event = await got.get()
        await recorder.ended("process a.b")
    sent = recorder.span("publish a.b")
    assert event.trace_id == sent.trace_id
    assert event.headers["traceparent"] == f"00-{sent.trace_id}-{sent.span_id}-01"
    assert event.headers["mine"] == "kept"


async def test_a_payload_with_a_trace_id_of_its_own_keeps_it() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)
    got: asyncio.Queue[Envelope[dict[str, object]]] = asyncio.Queue()

    @bus.subscribe("a.b")
    async def keep(event: Envelope[dict[str, object]]) -> None:
        got.put_nowait(event)

    async with bus:
        with recorder.trace_span("turn"):
            await bus.publish("a.b", {"trace_id": TRACE})
        event = await got.get()
    assert event.trace_id == TRACE
    assert event.headers["traceparent"].split("-")[1] == recorder.span("turn").trace_id


async def test_a_request_is_a_client_span_and_its_handler_a_server_span() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("ask.time")
    async def answer(question: dict[str, object]) -> dict[str, object]:
        return {"time": "now"}

    async with bus:
        assert await bus.request("ask.time", {}, dict) == {"time": "now"}
        await recorder.ended("process ask.time")
    client, server = recorder.span("request ask.time"), recorder.span("process ask.time")
    assert (client.kind, server.kind) == ("client", "server")
    assert recorder.parent(server) == client
    assert recorder.total("messaging.client.operation.duration", {"messaging.operation.name": "request"}) == 1  # fmt: skip # noqa: E501


async def test_a_failing_request_has_an_error_type_and_none_of_its_text() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("ask.time", group="clocks")
    async def answer(question: dict[str, object]) -> None:
        raise ValueError("my name is Alice")

    async with bus:
        with pytest.raises(RemoteError):
            await bus.request("ask.time", {}, dict)
        with pytest.raises(NoResponders):
            await bus.request("ask.nobody", {}, dict)
        await recorder.ended("process ask.time")
    client = recorder.span("request ask.time")
    assert (client.status, client.attributes["error.type"]) == ("error", "ValueError")
    assert recorder.total("messaging.client.sent.messages", {"error.type": "ValueError"}) == 1
    assert recorder.span("request ask.nobody").status == "error"
    server = recorder.span("process ask.time")
    assert (server.status, server.attributes["error.type"]) == ("error", "ValueError")
    assert "Alice" not in repr(recorder.spans)


async def test_retries_dead_letter_and_verdict_are_events_of_one_span() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("work.do", retry=Retry(attempts=3, first=0.001))
    async def work(job: dict[str, object]) -> None:
        raise KeyError("secret")

    async with bus:
        await bus.publish("work.do", {})
        await recorder.ended("process work.do")
    span = recorder.span("process work.do")
    assert [event.name for event in span.events] == [
        "arc.attempt.failed",
        "arc.retry",
        "arc.attempt.failed",
        "arc.retry",
        "arc.dead_letter",
        "arc.settle",
    ]
    assert span.events[1].attributes == {"arc.attempt": 2, "error.type": "KeyError"}
    assert (span.status, span.attributes["arc.attempts"]) == ("error", 3)
    assert recorder.total("arc.messages.retried") == 2
    assert recorder.total("arc.messages.dead_lettered") == 1
    assert recorder.total("messaging.process.duration", {"error.type": "KeyError"}) == 1


async def test_a_message_that_a_retry_saved_is_no_error() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("work.do", retry=Retry(attempts=3, first=0.001))
    async def work(job: dict[str, object], message: Message) -> None:
        if message.attempt < 3:
            raise OSError

    async with bus:
        await bus.publish("work.do", {})
        await recorder.ended("process work.do")
    span = recorder.span("process work.do")
    assert (span.status, span.attributes["arc.attempts"]) == ("unset", 3)
    assert "error.type" not in span.attributes
    assert recorder.total("messaging.process.duration", {"error.type": "OSError"}) == 0
    assert recorder.total("messaging.client.consumed.messages") == 1


async def test_a_time_out_is_told_as_one() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("work.do", retry=Retry(attempts=1), timeout=0.01)
    async def work(job: dict[str, object]) -> None:
        await asyncio.Event().wait()

    async with bus:
        await bus.publish("work.do", {})
        await recorder.ended("process work.do")
    span = recorder.span("process work.do")
    assert (span.status, span.attributes["error.type"]) == ("error", "TimeoutError")
    assert [event.name for event in span.events] == ["arc.dead_letter", "arc.settle"]


async def test_undecodable_input_and_reject_are_spans_too() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("work.raw")
    async def raw(job: dict[str, int]) -> None:
        raise Reject("no")

    async with bus:
        await bus.forward(Outgoing("work.raw", b"\xff{", {}, "id-1"))
        await bus.publish("work.raw", {"a": 1})
        await recorder.ended("process work.raw", 2)
    undecodable, rejected = recorder.named("process work.raw")
    assert undecodable.attributes["error.type"] == "arc_bus.errors.DecodeError"
    assert rejected.attributes["error.type"] == "arc_bus.errors.Reject"
    assert [s.events[-2].name for s in (undecodable, rejected)] == ["arc.dead_letter"] * 2


@pytest.mark.parametrize(
    ("written", "trace"),
    [
        (TRACE, TRACE),
        ("0191e3a0-7b1c-7def-8abc-0123456789ab", "0191e3a07b1c7def8abc0123456789ab"),
    ],
)
async def test_the_trace_of_an_older_service_goes_on(written: str, trace: str) -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("old.said")
    async def onward(job: dict[str, object]) -> None:
        await bus.publish("new.said", {})

    async with bus:
        body = f'{{"timestamp":"2026-01-01T00:00:00Z","service":"old","trace_id":"{written}"}}'
        await bus.forward(Outgoing("old.said", body.encode(), {}, "id-1"))
        await recorder.ended("process old.said")
    assert recorder.span("process old.said").trace_id == trace
    assert recorder.span("publish new.said").trace_id == trace


async def test_go_services_headers_in_capitals_are_understood() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("go.said")
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        headers = {"Traceparent": f"00-{TRACE.upper()}-{SPAN}-01", "Tracestate": "vendor=x"}
        await bus.forward(Outgoing("go.said", b"{}", headers, "id-1"))
        await recorder.ended("process go.said")
    span = recorder.span("process go.said")
    assert (span.trace_id, span.parent_id) == (TRACE, SPAN)


async def test_linked_only_a_handler_is_a_trace_of_its_own() -> None:
    recorder = Recorder(settings=Settings(relation="link"))
    bus = bus_with(recorder)

    @bus.subscribe("a.b")
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        await bus.publish("a.b", {})
        await recorder.ended("process a.b")
    sent, handled = recorder.span("publish a.b"), recorder.span("process a.b")
    assert handled.parent_id == ""
    assert handled.trace_id != sent.trace_id
    assert handled.links == ((sent.trace_id, sent.span_id),)


async def test_an_unsampled_trace_is_passed_on_and_never_recorded() -> None:
    recorder = Recorder(sampler=DEFAULT_OFF)
    bus = bus_with(recorder)
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    @bus.subscribe("a.b")
    async def first(event: Envelope[dict[str, object]]) -> None:
        seen.put_nowait((event.trace_id, event.headers["traceparent"]))
        assert not get_current_span().is_recording()
        await bus.publish("a.c", {})

    @bus.subscribe("a.c")
    async def second(event: Envelope[dict[str, object]]) -> None:
        seen.put_nowait((event.trace_id, event.headers["traceparent"]))

    async with bus:
        await bus.publish("a.b", {})
        one, two = await seen.get(), await seen.get()
    assert recorder.spans == []
    assert one[0] == two[0] == one[1].split("-")[1] == two[1].split("-")[1]
    assert one[1].endswith("-00")
    assert recorder.total("messaging.client.sent.messages") == 2


async def test_a_sampled_callers_trace_is_recorded_where_roots_are_not() -> None:
    recorder = Recorder(sampler=DEFAULT_OFF)
    bus = bus_with(recorder)

    @bus.subscribe("a.b")
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        await bus.publish("a.b", {}, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        await recorder.ended("process a.b")
    assert recorder.span("publish a.b").parent_id == SPAN
    assert recorder.parent(recorder.span("process a.b")).name == "publish a.b"


async def test_a_sampler_that_follows_no_parent_records_what_the_caller_did_not() -> None:
    recorder = Recorder(sampler=ALWAYS_ON)
    bus = bus_with(recorder)

    @bus.subscribe("a.b")
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        await bus.forward(Outgoing("a.b", b"{}", {"traceparent": f"00-{TRACE}-{SPAN}-00"}, "id-1"))
        await recorder.ended("process a.b")
    assert recorder.span("process a.b").trace_id == TRACE


async def test_an_unsampled_handlers_payload_keeps_its_own_trace_id() -> None:
    recorder = Recorder(sampler=DEFAULT_OFF)
    bus = bus_with(recorder)
    got: asyncio.Queue[Envelope[dict[str, object]]] = asyncio.Queue()

    @bus.subscribe("a.b")
    async def onward(job: dict[str, object]) -> None:
        await bus.publish("a.c", {"trace_id": TRACE})

    @bus.subscribe("a.c")
    async def keep(event: Envelope[dict[str, object]]) -> None:
        got.put_nowait(event)

    async with bus:
        await bus.publish("a.b", {})
        event = await got.get()
    assert event.trace_id == TRACE
    assert TRACE not in event.headers["traceparent"]


async def test_what_one_message_leaves_in_the_context_the_next_does_not_see() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    @bus.subscribe("a.b", concurrency=1)
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        for _ in range(50):
            await bus.publish("a.b", {})
        await recorder.ended("process a.b", 50)
    assert len({span.trace_id for span in recorder.named("process a.b")}) == 50


async def test_a_cancelled_handler_is_no_error() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)
    begun = asyncio.Event()

    @bus.subscribe("a.b")
    async def hang(job: dict[str, object]) -> None:
        begun.set()
        await asyncio.Event().wait()

    await bus.start()
    await bus.publish("a.b", {})
    await begun.wait()
    await bus.close(grace=0.01)
    span = recorder.span("process a.b")
    assert (span.status, span.attributes["arc.cancelled"]) == ("unset", True)
    assert recorder.total("arc.messages.in_flight") == 0


async def test_ten_thousand_subjects_are_a_bounded_number_of_series() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)
    letters = "abcdefghijklmnopqrstuvwxyz"

    @bus.subscribe("flood.>")
    async def hear(job: dict[str, object]) -> None: ...

    async with bus:
        for first in letters:
            for second in letters:
                for third in letters[:15]:
                    await bus.publish(f"flood.{first}{second}{third}", {})
        await recorder.ended("process flood.>", 10_140)
    assert recorder.total("messaging.client.sent.messages") == 10_140
    assert recorder.series("messaging.client.operation.duration") == MAX_LABELS + 1
    assert recorder.series("messaging.process.duration") == 1
    assert sum(len(metric.cells) for metric in recorder.registry) < 1000


async def test_switched_off_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    recorder = Recorder()
    bus = bus_with(recorder)
    got: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()

    @bus.subscribe("a.b")
    async def hear(job: dict[str, object], message: Message) -> None:
        got.put_nowait(message.headers)

    async with bus:
        assert bus.plugins.publish_middleware(bus, Operation.PUBLISH) == []
        subscription = Subscription(pattern="a.b")
        assert not any(bus.plugins.consume_middleware(bus, subscription).values())
        assert bus.plugins.observers(bus) == []
        await bus.publish("a.b", {})
        assert "traceparent" not in await got.get()
    assert not recorder.on
    assert recorder.spans == []


async def test_a_failed_publish_is_a_failed_span() -> None:
    class Refuse:
        plugin_name = "refuse"

        @hookimpl
        def arc_publish_middleware(self, bus: Bus, operation: Operation) -> list[PublishMiddleware]:
            def wrap(send: Sender) -> Sender:
                async def refuse(envelope: Envelope[object]) -> Delivery | None:
                    raise PublishRejected(f"secret {envelope.destination}")

                return refuse

            return [wrap]

    recorder = Recorder()
    bus = Bus("tester", routes={"": "memory://"}, plugins=[recorder, Refuse()])
    async with bus:
        with pytest.raises(ArcBusError):
            await bus.publish("a.b", {})
    span = recorder.span("publish a.b")
    assert (span.status, span.attributes["error.type"]) == (
        "error",
        "arc_bus.errors.PublishRejected",
    )
    assert recorder.total("messaging.client.sent.messages", {"error.type": cast("str", span.attributes["error.type"])}) == 1  # fmt: skip # noqa: E501


async def test_the_time_on_the_way_is_measured_without_the_handlers() -> None:
    recorder = Recorder()
    bus = bus_with(recorder)

    begun = 0.0

    @bus.subscribe("a.b")
    async def slow(job: dict[str, object]) -> None:
        nonlocal begun
        begun = time.time()
        await asyncio.sleep(0.2)

    async with bus:
        published = time.time()
        await bus.publish("a.b", {})
        await recorder.ended("process a.b")
    hop = recorder.distribution("arc.hop.latency", {"messaging.destination.template": "a.b"})
    assert hop.count == 1
    # A timestamp is cut to milliseconds; the handler's 0.2 s are never among them.
    assert hop.total <= begun - published + 0.002


@pytest.mark.parametrize("wanted", [True, False])
async def test_baggage_travels_only_when_it_is_asked_for(wanted: bool) -> None:
    recorder = Recorder(settings=Settings(baggage=wanted))
    bus = bus_with(recorder)
    got: asyncio.Queue[object] = asyncio.Queue()

    async def hear(job: dict[str, object]) -> None:
        got.put_nowait(baggage.get_baggage("tenant"))

    bus.subscribe("a.b", hear)
    async with bus:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        await bus.publish("a.b", {})
        context.detach(token)
        assert await got.get() == ("acme" if wanted else None)
