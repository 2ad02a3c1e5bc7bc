"""The OpenTelemetry Collector itself takes what we send, and hands it on unchanged."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from arc_bus import Bus, Retry
from arc_telemetry import Settings, Telemetry
from arc_telemetry.receiver import Receiver

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "servers" / "otelcol"
BINARY = ROOT / "build" / "otelcol" / "otelcol"
BUILD_TIME = 900
"""Seconds that the first build may take: 73 with an idle machine and its modules at hand."""

CONFIGURATION = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  debug: {{verbosity: detailed}}
  otlp_grpc: {{endpoint: "{onward}", tls: {{insecure: true}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
    metrics: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
    logs: {{receivers: [otlp], exporters: [otlp_grpc, debug]}}
"""


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The collector of `tests/servers/otelcol`, built from Go modules once and kept in build/."""
    if shutil.which("go") is None:
        pytest.skip("Go builds the OpenTelemetry Collector for this test; there is no Go here")
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    sources = [SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    with (BINARY.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(source.stat().st_mtime for source in sources)
        if not BINARY.exists() or BINARY.stat().st_mtime < newest:
            command = ["go", "build", "-trimpath", "-o", str(BINARY), "."]
            done = subprocess.run(
                command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_TIME, check=False
            )
            assert done.returncode == 0, done.stderr
    return BINARY


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
async def behind() -> AsyncGenerator[Receiver]:
    """Where the collector sends what it got."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def collector(
    collector_binary: Path, behind: Receiver, tmp_path: Path
) -> AsyncGenerator[tuple[str, Path]]:
    """A running collector: its endpoint, and what it prints."""
    port, output = free_port(), tmp_path / "otelcol.log"
    settings = tmp_path / "otelcol.yaml"
    onward = behind.endpoint.removeprefix("http://")
    settings.write_text(CONFIGURATION.format(port=port, onward=onward))
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(collector_binary), "--config", f"file:{settings}", stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(30):
            while b"Everything is ready" not in output.read_bytes():
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", output
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.timeout(BUILD_TIME + 120)
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
