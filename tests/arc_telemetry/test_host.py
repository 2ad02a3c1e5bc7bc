"""A host application's own providers: used, never flushed, stopped or replaced."""

# Over 300 lines, because the code that runs in processes of its own stands beside its test.

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, Sampler, SamplingResult

from arc_bus import Bus
from arc_telemetry import Telemetry
from arc_telemetry.seen import SeenSpan, from_readable

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Host:
    """Providers as an application sets them up for itself."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter = MeterProvider([self.reader], shutdown_on_exit=False)

    def telemetry(self) -> Telemetry:
        return Telemetry(tracer_provider=self.tracer, meter_provider=self.meter)

    @property
    def spans(self) -> dict[str, SeenSpan]:
        return {span.name: from_readable(span) for span in self.exporter.get_finished_spans()}

    def points(self) -> Mapping[str, Sequence[object]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found: dict[str, Sequence[object]] = {}
        for scope in data.resource_metrics[0].scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = list(metric.data.data_points)
        return found


async def run_once(telemetry: Telemetry, headers: dict[str, str] | None = None) -> None:
    bus = Bus("svc", routes={"": "memory://"}, plugins=[telemetry])
    handled = asyncio.Event()

    @bus.subscribe("a.b", group="g")
    async def hear(payload: dict[str, object]) -> None:
        with telemetry.trace_span("inside"):
            handled.set()

    async with bus:
        await bus.publish("a.b", {}, headers=headers)
        async with asyncio.timeout(5):
            await handled.wait()


async def test_its_tracer_and_meter_get_what_ours_would() -> None:
    host = Host()
    await run_once(host.telemetry())
    spans, points = host.spans, host.points()
    assert spans["process a.b"].parent_id == spans["publish a.b"].span_id
    assert spans["process a.b"].links == (
        (spans["publish a.b"].trace_id, spans["publish a.b"].span_id),
    )
    assert spans["inside"].parent_id == spans["process a.b"].span_id
    duration = points["messaging.process.duration"][0]
    assert duration.explicit_bounds[0] == 0.005  # type: ignore[attr-defined]
    assert duration.count == 1  # type: ignore[attr-defined]
    assert points["messaging.client.sent.messages"][0].value == 1  # type: ignore[attr-defined]
    assert points["arc.messages.in_flight"][0].value == 0  # type: ignore[attr-defined]


async def test_shutdown_leaves_its_providers_working() -> None:
    host = Host()
    telemetry = host.telemetry()
    await run_once(telemetry)
    telemetry.shutdown()
    with host.tracer.get_tracer("host").start_as_current_span("still mine"):
        pass
    assert "still mine" in host.spans


async def test_its_sampler_decides_and_an_unsampled_caller_is_passed_on() -> None:
    host = Host(DEFAULT_OFF)
    await run_once(host.telemetry())
    assert host.spans == {}
    await run_once(host.telemetry(), {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert host.spans["process a.b"].trace_id == TRACE


class Only(Sampler):
    """A sampler that nobody but the host knows."""

    def should_sample(self, *args: object, **kwargs: object) -> SamplingResult:
        from opentelemetry.sdk.trace.sampling import Decision

        name = str(args[2] if len(args) > 2 else kwargs["name"])
        wanted = name.startswith("process")
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP)

    def get_description(self) -> str:
        return "Only"


async def test_a_sampler_of_its_own_is_asked_each_time() -> None:
    host = Host(Only())
    await run_once(host.telemetry())
    assert set(host.spans) == {"process a.b"}


def in_a_process(code: str, **environment: str) -> Any:
    """Run code that touches OpenTelemetry's globals, set once a process; return its JSON."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'plugins'}", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_and_its_hooks_loads_nothing_of_opentelemetry() -> None:
    found = in_a_process(
        "import json, sys, arc_telemetry\n"
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in"
        " ('opentelemetry', 'grpc', 'sqlalchemy')]))"
    )
    assert found == []


def test_without_the_extra_the_bus_says_what_to_install() -> None:
    found = in_a_process(
        """
import json, sys
for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.trace"):
    sys.modules[name] = None
from arc_bus import Bus
from arc_bus.errors import MissingExtra
import arc_telemetry
said = []
for what in (lambda: Bus("x", routes={}, plugins=["telemetry"]),
             lambda: arc_telemetry.init_otel("x"),
             lambda: arc_telemetry.Telemetry("x").start(),
             lambda: arc_telemetry.increment_counter("x")):
    try:
        what()
    except MissingExtra as error:
        said.append(str(error))
print(json.dumps(said))
"""
    )
    assert len(found) == 4
    assert all("pip install 'arc-bus[telemetry]'" in text for text in found)


SEED = """
import asyncio, json
from opentelemetry import metrics, trace
from arc_telemetry import *
before = trace.get_tracer_provider()
with trace_span("too early"):
    increment_counter("too.early")
otel = init_otel("arc-piper-tts")
assert init_otel("another") is otel is get_otel()
@trace_span("synthesis", {"voice": "a"})
async def speak():
    record_error("timeout", "slow")
    return get_trace_context()
ids = asyncio.run(speak())
increment_counter("turns", 2)
record_histogram("wait", 0.5)
record_latency("llm", 12.5)
set_gauge("sessions", 3)
ours = trace.get_tracer_provider() is otel.tracer_provider
done = shutdown()
shutdown()
increment_counter("too.late")
print(json.dumps({"ours": ours, "ids": ids, "done": done,
    "metrics": sorted(m.name for m in otel.registry if m.cells)}))
"""


async def test_the_seeds_helpers_work_by_themselves() -> None:
    from arc_telemetry.receiver import Receiver

    async with Receiver() as receiver:
        found = await asyncio.to_thread(
            in_a_process, SEED, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint
        )
        assert found["ours"] is True
        assert found["done"] is True
        span = next(span for span in receiver.spans if span.name == "synthesis")
        assert found["ids"]["trace_id"] == span.trace_id
        assert span.service == "arc-piper-tts"
        assert [event.name for event in span.events] == ["arc.error"]
        assert {s.name for s in receiver.spans} == {"synthesis"}
        names = {point.name for point in receiver.points}
        assert {"turns", "wait", "sessions"} <= names
        assert {"arc-piper-tts.latency", "arc-piper-tts.errors"} <= names


def test_switched_off_the_seeds_helpers_install_nothing() -> None:
    found = in_a_process(
        """
import json, threading
from opentelemetry import trace
from arc_telemetry import *
before = threading.active_count()
otel = init_otel("svc")
with trace_span("x"):
    increment_counter("c"); record_error("a", "b"); record_latency("l", 1)
assert get_otel() is otel
print(json.dumps({"on": otel.on, "threads": threading.active_count() - before,
    "proxy": isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)}))
""",
        OTEL_SDK_DISABLED="true",
    )
    assert found == {"on": False, "threads": 0, "proxy": True}


def test_what_a_host_has_set_globally_is_used_also_by_the_plugin_of_that_name() -> None:
    found = in_a_process(
        """
import asyncio, json
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
from arc_bus import Bus
from arc_telemetry import init_otel, get_otel, record_latency
otel = init_otel("host-service")
async def main():
    for _ in range(2):  # two buses, one after the other, count into the same instruments
        async with Bus("svc", routes={"": "memory://"}, plugins=["telemetry"]) as bus:
            await bus.publish("a.b", {})
asyncio.run(main())
record_latency("llm", 5)
otel.shutdown()
data = reader.get_metrics_data().resource_metrics[0].scope_metrics
sent = [p.value for s in data for m in s.metrics for p in m.data.data_points
        if m.name == "messaging.client.sent.messages"]
names = [m.name for s in data for m in s.metrics]
print(json.dumps({"spans": [s.name for s in exporter.get_finished_spans()], "sent": sent,
    "same": trace.get_tracer_provider() is provider, "latency": "host-service.latency" in names}))
"""
    )
    assert found == {"spans": ["publish a.b"] * 2, "sent": [2], "same": True, "latency": True}


def test_one_of_its_own_counts_with_the_processs_telemetry() -> None:
    found = in_a_process(
        """
import json
from arc_telemetry import Settings, Telemetry, init_otel
process = init_otel("svc", Settings(traces=False, metrics=False))
other = Telemetry("other").start()
other.increment_counter("turns")
print(json.dumps({"shared": other.registry is process.registry,
    "provider": other.tracer_provider is process.tracer_provider}))
"""
    )
    assert found == {"shared": True, "provider": True}


async def test_the_plugin_by_name_takes_its_table_and_two_buses_share_it(tmp_path: Path) -> None:
    from arc_telemetry.receiver import Receiver

    async with Receiver() as receiver:
        toml = tmp_path / "arc.toml"
        toml.write_text(
            'service = "svc"\nplugins = ["telemetry"]\n[routes]\n"" = "memory://"\n'
            f'[telemetry]\nendpoint = "{receiver.endpoint}"\nversion = "9"\n'
        )
        found = await asyncio.to_thread(
            in_a_process,
            f"""
import asyncio, json
from arc_bus import Bus
from arc_telemetry import get_otel
async def main():
    one, other = Bus.from_config({str(toml)!r}), Bus.from_config({str(toml)!r})
    async with one, other:
        await one.publish("a.b", {{}})
        await other.publish("a.c", {{}})
asyncio.run(main())
print(json.dumps({{"version": get_otel().settings.version}}))
""",
        )
        assert found == {"version": "9"}
        assert {span.name for span in receiver.spans} == {"publish a.b", "publish a.c"}
        assert receiver.spans[0].resource["service.version"] == "9"


def test_a_wrong_table_stops_the_bus_from_being_made(tmp_path: Path) -> None:
    from arc_bus.errors import ConfigError

    with pytest.raises(ConfigError, match="colour"):
        Bus("x", routes={}, plugins=[Telemetry()], settings={"telemetry": {"colour": 1}})
