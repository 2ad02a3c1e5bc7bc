"""Telemetry's cost a message on the in-memory bus: off, unsampled, sampled, and the SDK's own.

The figure is processor time a message, published and handled: what a service loses of its capacity.
Where spans are recorded it is that of the whole process, the exporter's thread included: they are
encoded and sent over gRPC to a collector in another process. The SDK's own cost is that of the same
two spans and the same four instruments, in its tracer, batch processor, exporter and meter. An
empty middleware shows what the bus itself takes for looking at each message.
"""

# Over 300 lines, because the contenders are compared line by line in one place.

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

from arc_bus import Bus, Envelope, Message, Subscription, hookimpl
from arc_bus.middleware import (
    ConsumeMiddleware,
    Handler,
    Operation,
    PublishMiddleware,
    Sender,
    Slot,
)
from arc_bus.transport import Delivery
from arc_telemetry import Settings, Telemetry

UNSAMPLED, SAMPLED = 4.0, 60.0
"""Microseconds a message that telemetry may add (design.md, "Budgets")."""

SLICE = 64
"""Messages under way at once, and between two turns of a contender."""

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


class Empty:
    """A plugin whose middleware does nothing."""

    @hookimpl
    def arc_publish_middleware(self, bus: Bus, operation: Operation) -> list[PublishMiddleware]:
        """Pass every message on."""

        def wrap(send: Sender) -> Sender:
            async def passed_on(envelope: Envelope[object]) -> Delivery | None:
                return await send(envelope)

            return passed_on

        return [wrap]

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> list[tuple[Slot, ConsumeMiddleware]]:
        """Pass every message on."""

        def wrap(handler: Handler) -> Handler:
            async def passed_on(message: Message) -> object:
                return await handler(message)

            return passed_on

        return [(Slot.DELIVERY, wrap)]


Contender = tuple[Bus, Arrivals]


async def start(plugins: list[object]) -> Contender:
    """Start a bus with one handler."""
    bus, arrivals = Bus("bench", {"": "memory://"}, plugins), Arrivals()
    bus.subscribe("bench.turn.*", _counting(arrivals), group="g", dead_letter=None)
    await bus.start()
    return bus, arrivals


async def slice_of(contender: Contender) -> None:
    """Publish and handle `SLICE` messages."""
    bus, arrivals = contender
    arrivals.expect(SLICE)
    for number in range(SLICE):
        await bus.publish("bench.turn.said", {"n": number})
    await arrivals.wait()


async def in_slices(
    contenders: dict[str, Contender], count: int, rounds: int
) -> dict[str, list[float]]:
    """Microseconds a message in the loop's thread, the contenders taking turns every slice.

    A round's figure is its fastest slice: what a machine's other work does to a slice only adds.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        fastest = dict.fromkeys(contenders, float("inf"))
        for _ in range(count // SLICE):
            for name, contender in contenders.items():
                begun = time.thread_time()
                await slice_of(contender)
                fastest[name] = min(fastest[name], time.thread_time() - begun)
        if number >= 0:
            for name, seconds in fastest.items():
                figures[name].append(seconds / SLICE * 1e6)
    return figures


async def whole(contender: Contender, own: Telemetry | None, count: int) -> float:
    """Microseconds a message in all threads, until the last span has been sent."""
    begun = time.process_time()
    for _ in range(count // SLICE):
        await slice_of(contender)
    if own is not None:
        await asyncio.to_thread(own.flush, 30)
    return (time.process_time() - begun) / (count // SLICE * SLICE) * 1e6


async def contend(
    endpoint: str, count: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the figures of what records nothing, and of what records everything."""
    with environment(OTEL_SDK_DISABLED="true"):
        off = await start([Telemetry("bench").start()])
    unsampled, sampled = telemetry(endpoint, "always_off"), telemetry(endpoint, "always_on")
    bare, quiet, loud = await start([]), await start([unsampled]), await start([sampled])
    empty = await start([Empty()])
    contenders = {"none": bare, "off": off, "empty": empty, "unsampled": quiet}
    light = await in_slices(contenders, count, rounds)
    heavy: dict[str, list[float]] = {"none": [], "sampled": []}
    await whole(loud, sampled, count)
    for _ in range(rounds):
        heavy["none"].append(await whole(bare, None, count))
        heavy["sampled"].append(await whole(loud, sampled, count))
    for bus, _ in (bare, off, empty, quiet, loud):
        await bus.close()
    for own in (unsampled, sampled):
        await asyncio.to_thread(own.shutdown)
    return light, heavy


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


def _difference(costs: list[float], bare: list[float]) -> list[float]:
    return [cost - without for cost, without in zip(costs, bare, strict=True)]


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows: what unsampled and sampled add, against their budgets and the SDK."""
    count, rounds = (2_000, 5) if quick else (10_000, 9)
    with ExitStack() as stack:
        endpoint = stack.enter_context(collector())
        light, heavy = asyncio.run(contend(endpoint, count, rounds))
        sdk = Sdk(endpoint)
        sdk.round(count)
        theirs = [sdk.round(count) for _ in range(rounds)]
        sdk.close()
    added = {
        "empty": _difference(light["empty"], light["none"]),
        "unsampled": _difference(light["unsampled"], light["none"]),
        "sampled": _difference(heavy["sampled"], heavy["none"]),
    }

    def against_budget(name: str, budget: float) -> dict[str, Any]:
        title, budgets = f"telemetry, {name}: adds to a message", [budget] * rounds
        return row(title, added[name], budgets, against_name="budget", unit="µs", at_most=1.0)

    return [
        row(
            "telemetry, switched off: a message",
            light["off"],
            light["none"],
            against_name="no plugin",
            unit="µs",
            at_most=1.1,
        ),
        against_budget("unsampled", UNSAMPLED),
        row(
            "telemetry, unsampled: of that, for any middleware",
            added["empty"],
            added["unsampled"],
            against_name="unsampled",
            unit="µs",
        ),
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
