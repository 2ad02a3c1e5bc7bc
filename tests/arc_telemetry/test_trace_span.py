from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.trace import get_current_span

from arc_bus.errors import ConfigError
from arc_telemetry import Telemetry
from arc_telemetry.testing import Recorder


def test_nested_blocks_are_nested_spans() -> None:
    recorder = Recorder("svc")
    with recorder.trace_span("outer", {"a": 1}) as outer:
        outer.set_attribute("b", "two")
        with recorder.trace_span("inner"):
            outer.add_event("noted", {"c": 3})
    inner, above = recorder.span("inner"), recorder.span("outer")
    assert recorder.parent(inner) == above
    assert above.attributes == {"a": 1, "b": "two"}
    assert [event.name for event in above.events] == ["noted"]
    assert not get_current_span().get_span_context().is_valid


def test_an_error_is_told_by_its_type_and_its_text_only_if_asked() -> None:
    recorder = Recorder("svc")
    with pytest.raises(ValueError, match="Alice"), recorder.trace_span("quiet"):
        raise ValueError("I am Alice")
    with (
        pytest.raises(ValueError, match="Alice"),
        recorder.trace_span("loud", record_exceptions=True),
    ):
        raise ValueError("I am Alice")
    quiet, loud = recorder.span("quiet"), recorder.span("loud")
    assert (quiet.status, quiet.attributes["error.type"]) == ("error", "ValueError")
    assert "Alice" not in repr(quiet)
    assert loud.events[0].attributes["exception.message"] == "I am Alice"


async def test_it_decorates_functions_of_both_kinds_and_keeps_what_they_are() -> None:
    recorder = Recorder("svc")

    @recorder.trace_span("plain")
    def double(number: int) -> int:
        return 2 * number

    @recorder.trace_span("coroutine")
    async def triple(number: int) -> int:
        await asyncio.sleep(0)
        return 3 * number

    assert double(2) == 4
    assert tuple(await asyncio.gather(triple(1), triple(2))) == (3, 6)
    assert asyncio.iscoroutinefunction(triple)
    assert double.__name__ == "double"
    assert (len(recorder.named("plain")), len(recorder.named("coroutine"))) == (1, 2)


def test_a_generator_cannot_be_decorated() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigError, match="generator"):
        Recorder("svc").trace_span("x")(stream)


async def test_a_cancelled_block_is_no_error() -> None:
    recorder = Recorder("svc")

    async def hang() -> None:
        async with recorder.trace_span("hang"):
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = recorder.span("hang")
    assert (span.status, span.attributes) == ("unset", {"arc.cancelled": True})


async def test_an_async_generator_left_half_way_ends_its_span_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder("svc")

    async def stream() -> AsyncIterator[int]:
        with recorder.trace_span("streaming"):
            yield 1
            yield 2

    source = stream()
    assert await anext(source) == 1
    await asyncio.create_task(source.aclose())  # type: ignore[attr-defined]
    assert recorder.span("streaming").status == "unset"
    assert not caplog.records


async def test_an_async_generator_closed_where_it_began_leaves_no_span_behind() -> None:
    recorder = Recorder("svc")

    async def stream() -> AsyncIterator[int]:
        with recorder.trace_span("streaming"):
            yield 1

    with recorder.trace_span("around") as around:
        source = stream()
        assert await anext(source) == 1
        await source.aclose()  # type: ignore[attr-defined]
        assert get_current_span() is around.span
    assert recorder.parent(recorder.span("streaming")).name == "around"


def test_switched_off_it_runs_the_block_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = Telemetry("svc")
    with telemetry.trace_span("x") as span:
        span.set_attribute("a", 1)
        span.add_event("b")
        assert span.span is None
    telemetry.record_error("timeout", "text")
    telemetry.increment_counter("c")
    assert telemetry.get_trace_context() == {}
    assert telemetry.flush()
    assert telemetry.shutdown()


def test_the_seeds_helpers_record_what_they_are_told() -> None:
    recorder = Recorder("arc-piper-tts")
    with recorder.trace_span("turn"):
        ids = recorder.get_trace_context()
        recorder.record_error("timeout", "no answer in time")
    recorder.increment_counter("turns", 2, {"voice": "a"})
    recorder.increment_counter("turns", attributes={"voice": "a"})
    recorder.set_gauge("sessions", 7)
    recorder.set_gauge("sessions", 5)
    recorder.observe_gauge("depth", lambda: 3.0)
    recorder.record_histogram("wait", 0.02, {"k": "v"}, unit="s")
    recorder.record_latency("synthesis", 30.0)
    span = recorder.span("turn")
    assert ids["trace_id"] == span.trace_id
    assert ids["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert span.events[0].attributes == {
        "error.type": "timeout",
        "arc.error.message": "no answer in time",
    }
    assert recorder.total("arc-piper-tts.errors", {"error.type": "timeout"}) == 1
    assert recorder.total("turns", {"voice": "a"}) == 3
    assert recorder.total("sessions") == 5
    assert recorder.total("depth") == 3
    latency = recorder.distribution("arc-piper-tts.latency", {"arc.operation": "synthesis"})
    assert (latency.count, latency.total) == (1, 30.0)
    assert recorder.total("wait") == 1


def test_a_counter_never_goes_down_and_a_read_gauge_is_not_set() -> None:
    recorder = Recorder("svc")
    with pytest.raises(ConfigError, match="negative"):
        recorder.increment_counter("turns", -1)
    recorder.observe_gauge("depth", lambda: 1.0)
    with pytest.raises(ConfigError, match="read from elsewhere"):
        recorder.set_gauge("depth", 2)


def test_nan_is_refused_for_it_would_spoil_its_neighbours() -> None:
    recorder = Recorder("svc")
    with pytest.raises(ConfigError, match="'wait': NaN"):
        recorder.record_histogram("wait", float("nan"))
    recorder.record_histogram("wait", 0.5)
    assert recorder.distribution("wait", {}).total == 0.5
