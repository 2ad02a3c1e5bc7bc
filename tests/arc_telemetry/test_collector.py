"""The OpenTelemetry Collector itself takes what we send, and hands it on unchanged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from arc_bus import Bus, Retry
from arc_telemetry import Settings, Telemetry
from arc_telemetry.receiver import Receiver


@pytest.mark.timeout(1020)  # of which the collector's first build may take 900
async def test_the_collector_takes_spans_metrics_and_logs_and_refuses_none(
    collector: tuple[str, Path], behind: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "50")
    endpoint, output = collector
    settings = Settings(endpoint=endpoint, logs=True, environment="test")
    async with Telemetry("arc-sherlock-brain", settings) as telemetry:
        bus = Bus("ignored", routes={"": "memory://"}, plugins=[telemetry])

        @bus.subscribe("agent.brain.wonder", group="w", retry=Retry(attempts=2, first=0.01))
        async def reason(request: dict[str, object]) -> None:
            logging.getLogger("brain").warning("thinking")
            telemetry.record_latency("llm", 12.0)
            raise ValueError("I am Alice")

        async with bus:
            with telemetry.trace_span("turn", {"attempt": 1, "share": 0.5, "ok": True}):
                await bus.publish("agent.brain.wonder", {})
            await behind.wait_for(lambda r: len(r.spans) >= 3)
    await behind.wait_for(lambda r: r.points and len(r.logs) >= 2)
    spans = {span.name: span for span in behind.spans}
    turn, sent = spans["turn"], spans["publish agent.brain.wonder"]
    handled = spans["process agent.brain.wonder"]
    assert (sent.parent_id, handled.parent_id) == (turn.span_id, sent.span_id)
    assert handled.links == ((sent.trace_id, sent.span_id),)
    assert (handled.status, handled.attributes["error.type"]) == ("error", "ValueError")
    assert [event.name for event in handled.events][-2:] == ["arc.dead_letter", "arc.settle"]
    assert turn.attributes == {"attempt": 1, "share": 0.5, "ok": True}
    assert turn.resource["deployment.environment.name"] == "test"
    points = {point.name: point for point in behind.points}
    assert points["messaging.client.operation.duration"].count == 1
    assert points["arc.messages.dead_lettered"].value == 1
    assert points["arc-sherlock-brain.latency"].count == 2
    assert {log.trace_id for log in behind.logs} == {handled.trace_id}
    printed = output.read_text()
    assert "publish agent.brain.wonder" in printed
    assert "Alice" not in printed
    assert "\twarn\t" not in printed
    assert "\terror\t" not in printed
