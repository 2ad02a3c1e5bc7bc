"""Our own providers against a real OTLP gRPC receiver: what arrives, and when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest

from arc_bus import Bus
from arc_bus.errors import ConfigError
from arc_telemetry import Settings, Telemetry
from arc_telemetry.receiver import Receiver

FAST = {
    "OTEL_BSP_SCHEDULE_DELAY": "20",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "20",
}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def telemetry_to(endpoint: str, **settings: object) -> Telemetry:
    chosen = Settings(endpoint=endpoint, version="3.1", environment="test", **settings)  # type: ignore[arg-type]
    return Telemetry("arc-sherlock-brain", chosen)


async def test_spans_metrics_and_logs_of_a_bus_arrive_with_their_resource(
    receiver: Receiver,
) -> None:
    async with telemetry_to(receiver.endpoint, logs=True) as telemetry:
        bus = Bus("ignored", routes={"": "memory://"}, plugins=[telemetry])
        log = logging.getLogger("turns")

        @bus.subscribe("agent.brain.>", group="workers")
        async def think(payload: dict[str, object]) -> None:
            log.warning("thinking")
            telemetry.record_latency("llm", 42.0)

        async with bus:
            await bus.publish("agent.brain.wonder", {})
            spans = await receiver.wait_for(lambda r: list(r.spans) if len(r.spans) >= 2 else [])
            await receiver.wait_for(lambda r: {"arc-sherlock-brain.latency", "messaging.process.duration"} <= {p.name for p in r.points})  # fmt: skip # noqa: E501
            await receiver.wait_for(lambda r: r.logs)
    by_name = {span.name: span for span in spans}
    sent, handled = by_name["publish agent.brain.wonder"], by_name["process agent.brain.>"]
    assert handled.trace_id == sent.trace_id
    assert handled.parent_id == sent.span_id
    assert handled.links == ((sent.trace_id, sent.span_id),)
    resource = {
        "service.name": "arc-sherlock-brain",
        "service.version": "3.1",
        "deployment.environment.name": "test",
    }
    for seen in (sent.resource, receiver.points[0].resource, receiver.logs[0].resource):
        assert resource.items() <= dict(seen).items()
    durations = [p for p in receiver.points if p.name == "messaging.process.duration"]
    assert durations[-1].bounds[:3] == (0.005, 0.01, 0.025)
    assert (durations[-1].unit, durations[-1].count) == ("s", 1)
    assert durations[-1].attributes["messaging.destination.template"] == "agent.brain.>"
    latency = next(p for p in receiver.points if p.name == "arc-sherlock-brain.latency")
    assert (latency.unit, latency.value, latency.bounds[-1]) == ("ms", 42.0, 10000.0)
    assert receiver.logs[0].body == "thinking"
    assert (receiver.logs[0].trace_id, receiver.logs[0].span_id) == (
        handled.trace_id,
        handled.span_id,
    )


async def test_delta_temporality_gives_each_interval_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    async with telemetry_to(receiver.endpoint) as telemetry:
        for round in range(3):
            for _ in range(5):
                telemetry.record_histogram("wait", 0.5)
                telemetry.increment_counter("turns")
            await receiver.wait_for(
                lambda r, seen=5 * (round + 1): (
                    sum(  # type: ignore[misc]
                        p.count for p in r.points if p.name == "wait"
                    )
                    == seen
                )
            )
    assert sum(p.value for p in receiver.points if p.name == "turns") == 15
    assert sum(p.value for p in receiver.points if p.name == "wait") == pytest.approx(7.5)


async def test_the_environment_names_the_service_and_the_headers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "by-operator")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=voice")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    async with Telemetry("by-code") as telemetry:
        with telemetry.trace_span("turn"):
            pass
        span = await receiver.wait_for(lambda r: r.spans and r.spans[0])
    assert span
    assert span.service == "by-operator"
    assert span.resource["deployment.environment.name"] == "prod"
    assert span.resource["team"] == "voice"
    assert receiver.headers[0]["x-key"] == "abc"


async def test_spans_of_other_libraries_go_the_same_way(receiver: Receiver) -> None:
    async with telemetry_to(receiver.endpoint) as telemetry:
        assert telemetry.tracer_provider is not None
        tracer = telemetry.tracer_provider.get_tracer("some.library")
        with telemetry.trace_span("ours"), tracer.start_as_current_span("theirs"):
            pass
        await receiver.wait_for(lambda r: len(r.spans) == 2)
    spans = {span.name: span for span in receiver.spans}
    assert spans["theirs"].parent_id == spans["ours"].span_id


async def test_leaving_exports_what_waits(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "60000")
    async with telemetry_to(receiver.endpoint) as telemetry:
        with telemetry.trace_span("turn"):
            telemetry.increment_counter("turns")
    assert [span.name for span in receiver.spans] == ["turn"]
    assert "turns" in {point.name for point in receiver.points}


async def test_a_bus_that_stops_exports_what_waits(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    telemetry = telemetry_to(receiver.endpoint)
    async with Bus("svc", routes={"": "memory://"}, plugins=[telemetry]) as bus:
        await bus.publish("a.b", {})
    assert [span.name for span in receiver.spans] == ["publish a.b"]
    await asyncio.to_thread(telemetry.shutdown)


async def test_a_plain_text_endpoint_elsewhere_stops_the_bus_from_starting() -> None:
    telemetry = telemetry_to("http://collector.example:4317")
    bus = Bus("svc", routes={"": "memory://"}, plugins=[telemetry])
    with pytest.raises(ConfigError, match="unencrypted"):
        await bus.start()


async def test_shutdown_takes_the_handler_off_the_root_logger(receiver: Receiver) -> None:
    before = list(logging.getLogger().handlers)
    async with telemetry_to(receiver.endpoint, logs=True):
        assert len(logging.getLogger().handlers) == len(before) + 1
    assert logging.getLogger().handlers == before


async def test_a_refusing_collector_is_counted_and_told_and_recovers(receiver: Receiver) -> None:
    telemetry = telemetry_to(receiver.endpoint)
    receiver.refusing = True
    bus = Bus("svc", routes={"": "memory://"}, plugins=[telemetry])
    async with bus:
        await bus.publish("a.b", {})
        await asyncio.to_thread(telemetry.flush, 5)
        [check] = [c for c in await bus.health() if c.name == "telemetry"]
        assert not check.ok
        assert "traces" in check.detail
        receiver.refusing = False
        await bus.publish("a.c", {})
        await receiver.wait_for(lambda r: any(s.name == "publish a.c" for s in r.spans))
        await bus.health()
        [check] = [c for c in await bus.health() if c.name == "telemetry"]
        assert check.ok
    await asyncio.to_thread(telemetry.shutdown)
