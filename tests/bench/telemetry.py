"""Telemetry's cost a message on the in-memory bus: off, unsampled, sampled, and the SDK's own.

The figure is processor time of the whole process a message, published and handled: what a service
loses of its capacity, the exporter's thread included. Sampled spans are encoded and sent over gRPC
to a collector in another process. The SDK's own cost is that of the same two spans and the same
four instruments, in the SDK's tracer, batch processor, exporter and meter.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from measure import Arrivals, row
from opentelemetry import context, propagate
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, get_current_span

from arc_bus import Bus
from arc_telemetry import Settings, Telemetry

UNSAMPLED, SAMPLED = 4.0, 60.0
"""Microseconds a message that telemetry may add (design.md, "Budgets")."""

QUEUE = "100000"
"""Spans that may wait: more than a round makes, so that each of them is encoded and sent."""

COLLECTOR = """
import asyncio, sys
sys.path[:0] = sys.argv[1:]
from arc_telemetry.receiver import Receiver
async def main():
    async with Receiver(keep=1) as receiver:
        print(receiver.endpoint, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@contextmanager
def collector() -> Iterator[str]:
    """A receiver in a process of its own; gives its endpoint."""
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "plugins")]
    command = [sys.executable, "-c", COLLECTOR, *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables for the time in which something is made."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def telemetry(endpoint: str, sampler: str) -> Telemetry:
    """Started telemetry that samples as named."""
    with environment(OTEL_TRACES_SAMPLER=sampler, OTEL_BSP_MAX_QUEUE_SIZE=QUEUE):
        return Telemetry("bench", Settings(endpoint=endpoint)).start()


async def bus_round(bus: Bus, arrivals: Arrivals, count: int) -> float:
    """Microseconds of processor time a message, for `count` published and handled, 64 at a time."""
    begun = time.process_time()
    for _ in range(count // 64):
        arrivals.expect(64)
        for number in range(64):
            await bus.publish("bench.turn.said", {"n": number})
        await arrivals.wait()
    return (time.process_time() - begun) / (count // 64 * 64) * 1e6


async def contend(
    buses: dict[str, tuple[Bus, Telemetry | None]], count: int, rounds: int
) -> dict[str, list[float]]:
    """Run every bus once a round, in another order each; spans are flushed inside the round."""
    arrivals = {name: Arrivals() for name in buses}
    figures: dict[str, list[float]] = {name: [] for name in buses}
    for name, (bus, _) in buses.items():
        bus.subscribe("bench.turn.*", _counting(arrivals[name]), group="g", dead_letter=None)
    for bus, _ in buses.values():
        await bus.start()
    for number in range(-1, rounds):
        names = list(buses)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            bus, own = buses[name]
            cost = await bus_round(bus, arrivals[name], count)
            begun = time.process_time()
            if own is not None:
                await asyncio.to_thread(own.flush, 30)
            cost += (time.process_time() - begun) / count * 1e6
            if number >= 0:
                figures[name].append(cost)
    for bus, own in buses.values():
        await bus.close()
        if own is not None:
            await asyncio.to_thread(own.shutdown)
    return figures


def _counting(arrivals: Arrivals) -> Callable[[dict[str, object]], Awaitable[None]]:
    async def handle(said: dict[str, object]) -> None:
        arrivals.one()

    return handle


class Sdk:
    """OpenTelemetry's own way of doing the same for one message."""

    def __init__(self, endpoint: str) -> None:
        """Make the SDK's providers, exporting to `endpoint`."""
        self.traces = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint)
        self.batches = BatchSpanProcessor(exporter, max_queue_size=int(QUEUE))
        self.traces.add_span_processor(self.batches)
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint))
        self.meters = MeterProvider([reader], shutdown_on_exit=False)
        self.tracer = self.traces.get_tracer("bench")
        meter = self.meters.get_meter("bench")
        self.sent = meter.create_counter("sent")
        self.consumed = meter.create_counter("consumed")
        self.sending = meter.create_histogram("sending")
        self.processing = meter.create_histogram("processing")

    def message(self, number: int) -> None:
        """Publish span and metrics, headers out and in, process span and metrics."""
        attributes = {
            "messaging.system": "memory",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.template": "bench.turn.*",
        }
        headers: dict[str, str] = {}
        with self.tracer.start_as_current_span(
            "publish bench.turn.*", kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            span.set_attribute("messaging.message.id", f"m-{number}")
            propagate.inject(headers)
        self.sent.add(1, attributes)
        self.sending.record(0.001, attributes)
        outside = propagate.extract(headers)
        link = Link(get_current_span(outside).get_span_context())
        token = context.attach(outside)
        with self.tracer.start_as_current_span(
            "process bench.turn.*", kind=SpanKind.CONSUMER, attributes=attributes, links=[link]
        ) as span:
            span.set_attribute("messaging.message.id", f"m-{number}")
            span.add_event("arc.settle", {"arc.verdict": "ack"})
        context.detach(token)
        self.consumed.add(1, attributes)
        self.processing.record(0.001, attributes)

    def round(self, count: int) -> float:
        """Microseconds of processor time a message, encoding and sending included."""
        begun = time.process_time()
        for number in range(count):
            self.message(number)
        self.batches.force_flush()
        return (time.process_time() - begun) / count * 1e6

    def close(self) -> None:
        """Stop."""
        self.traces.shutdown()
        self.meters.shutdown()


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows: what unsampled and sampled add, against their budgets and the SDK."""
    count, rounds = (2_000, 5) if quick else (10_000, 9)
    with ExitStack() as stack:
        endpoint = stack.enter_context(collector())
        unsampled = telemetry(endpoint, "always_off")
        sampled = telemetry(endpoint, "always_on")
        with environment(OTEL_SDK_DISABLED="true"):
            off = Telemetry("bench", Settings()).start()
        routes = {"": "memory://"}
        buses: dict[str, tuple[Bus, Telemetry | None]] = {
            "none": (Bus("bench", routes), None),
            "off": (Bus("bench", routes, [off]), None),
            "unsampled": (Bus("bench", routes, [unsampled]), unsampled),
            "sampled": (Bus("bench", routes, [sampled]), sampled),
        }
        figures = asyncio.run(contend(buses, count, rounds))
        sdk = Sdk(endpoint)
        sdk.round(count)
        theirs = [sdk.round(count) for _ in range(rounds)]
        sdk.close()
    added = {
        name: [cost - bare for cost, bare in zip(figures[name], figures["none"], strict=True)]
        for name in ("unsampled", "sampled")
    }

    def against_budget(name: str, budget: float) -> dict[str, Any]:
        title, budgets = f"telemetry, {name}: adds to a message", [budget] * rounds
        return row(title, added[name], budgets, against_name="budget", unit="µs", at_most=1.0)

    return [
        row(
            "telemetry, switched off: a message",
            figures["off"],
            figures["none"],
            against_name="no plugin",
            unit="µs",
            at_most=1.1,
        ),
        against_budget("unsampled", UNSAMPLED),
        against_budget("sampled", SAMPLED),
        row(
            "telemetry, sampled: spans, metrics, encoding, sending",
            added["sampled"],
            theirs,
            against_name="OpenTelemetry SDK",
            unit="µs",
        ),
    ]


if __name__ == "__main__":
    for line in rows("--quick" in sys.argv):
        print(line)
