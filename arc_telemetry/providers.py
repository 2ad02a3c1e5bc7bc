"""Providers: OpenTelemetry's three, made from settings and environment, and stopped in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    ConsoleLogRecordExporter,
    LogRecordExporter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from arc_telemetry import names
from arc_telemetry.instruments import HistogramJoin, host_histograms, show
from arc_telemetry.metric_export import ConsoleMetrics, OtlpMetrics
from arc_telemetry.metrics import Derived, Number, Registry
from arc_telemetry.otlp import (
    SpanExporter,
    check_endpoint,
    endpoint_of,
    timeout_of,
)
from arc_telemetry.processors import LogQueue, SpanQueue
from arc_telemetry.queue import JUST_NOW
from arc_telemetry.settings import Settings, check_propagators, exporters
from arc_telemetry.tracing import HostSpans, OwnSpans, Sampling, SpanStarter

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider as AnyLoggerProvider
    from opentelemetry.metrics import MeterProvider as AnyMeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.trace import TracerProvider as AnyTracerProvider

log = logging.getLogger(__name__)

LEAST = 1.0
"""Seconds that a stop has in any case."""


class Providers:
    """The providers in use, what starts spans, and how to flush and stop what is ours of them."""

    def __init__(
        self,
        spans: SpanStarter,
        tracer: AnyTracerProvider,
        meter: AnyMeterProvider,
        logger: AnyLoggerProvider,
    ) -> None:
        """Take three providers; nothing of them is stopped unless it is added to `stops`."""
        self.spans = spans
        self.tracer = tracer
        self.meter = meter
        self.logger = logger
        self.flushes: list[Callable[[float], object]] = []
        self.flush_metrics: Callable[[float], object] = lambda _seconds: True
        self.stops: list[Callable[[float], object]] = []
        self._failed = (0.0, 0.0)

    def flush(self, timeout: float, *, metrics: bool = True) -> bool:
        """Export what waits; True if it was all done in `timeout` seconds.

        Without `metrics` only spans and logs: a total that is exported later is no less.
        """
        steps = [*self.flushes, self.flush_metrics] if metrics else self.flushes
        began = time.monotonic()
        done = _all_within(steps, timeout)
        now = time.monotonic()
        self._failed = (0.0, 0.0) if done else (now, now - began)
        return done

    def left_of(self, seconds: float) -> float:
        """Return `seconds` less what a flush has just waited in vain; at least `LEAST`."""
        at, waited = self._failed
        return max(LEAST, seconds - (waited if time.monotonic() - at < JUST_NOW else 0.0))

    def stop(self, timeout: float) -> bool:
        """Export what waits and stop, in `timeout` seconds at most; True if it was all done."""
        stops, self.stops, self.flushes = self.stops, [], []
        return _all_within(stops, timeout)


def _all_within(steps: list[Callable[[float], object]], timeout: float) -> bool:
    """Run all steps at once in daemon threads, which are left behind if they take too long."""
    deadline = time.monotonic() + timeout
    results: list[object] = []

    def run(step: Callable[[float], object]) -> None:
        try:
            results.append(step(max(0.1, deadline - time.monotonic() - 0.1)))
        except Exception:  # a time-out of the SDK is one of these
            log.warning("telemetry was not flushed whole", exc_info=True)
            results.append(False)

    threads = [threading.Thread(target=run, args=(step,), daemon=True) for step in steps]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # Python 3.12: no thread can be started while the interpreter ends
        for step in steps:
            run(step)
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
    return len(results) == len(steps) and False not in results


def resource_of(service: str, settings: Settings) -> Resource:
    """Return who we are: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word."""
    given = {
        names.SERVICE_NAME: service,
        names.SERVICE_VERSION: settings.version,
        names.DEPLOYMENT_ENVIRONMENT: settings.environment,
    }
    said = OTELResourceDetector().detect().attributes
    return Resource.create({key: text for key, text in given.items() if text and key not in said})


class Losses:
    """Counts telemetry that never arrived, by signal and reason, from any thread."""

    def __init__(self, registry: Registry) -> None:
        """Count in `registry`."""
        self._registry = registry
        self._lost = registry.counter(names.ARC_TELEMETRY_LOST, "{item}")

    def of(self, signal: str) -> Callable[[int, str], None]:
        """Return what is told how many items of `signal` were lost, and why."""

        def lost(count: int, reason: str) -> None:
            with self._registry.lock:
                cell = self._lost.cell({names.ARC_SIGNAL: signal, names.ARC_REASON: reason})
                assert isinstance(cell, Number)
                cell.value += count

        return lost


def own(service: str, settings: Settings, registry: Registry) -> Providers:
    """Make providers of our own. Raises ConfigError for a variable or setting that cannot work."""
    check_propagators()
    resource = resource_of(service, settings)
    losses = Losses(registry)
    processor = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
    tracer = TracerProvider(
        resource=resource, shutdown_on_exit=False, active_span_processor=processor
    )
    queue = _spans(settings, losses, processor)
    readers = _readers(settings, registry, losses)
    meter = MeterProvider(readers, resource, shutdown_on_exit=False)
    log_queues = _log_queues(settings, losses)
    logger = _logger(resource, log_queues)
    providers = Providers(_starter(tracer, processor, settings), tracer, meter, logger)
    if queue is not None:
        providers.flushes.append(queue.queue.flush)
        providers.stops.append(queue.queue.close)
        waiting = registry.gauge(names.ARC_TELEMETRY_QUEUE, "{span}")
        waiting.put({}, Derived(lambda: len(queue.queue)))
    show(registry, meter.get_meter(names.SCOPE, settings.version, names.SCHEMA_URL))
    if readers:
        providers.flush_metrics = lambda seconds: meter.force_flush(seconds * 1000)
        providers.stops.append(lambda seconds: meter.shutdown(seconds * 1000))
    for logs in log_queues:
        providers.flushes.append(logs.queue.flush)
        providers.stops.append(logs.queue.close)
    return providers


def host(
    tracer: AnyTracerProvider,
    meter: AnyMeterProvider,
    logger: AnyLoggerProvider,
    registry: Registry,
) -> Providers:
    """Use a host application's providers; they are never flushed or stopped from here."""
    sampler = getattr(tracer, "sampler", None)
    sampling = Sampling.of(sampler) if sampler is not None else None
    spans = HostSpans(trace.get_tracer(names.SCOPE, "", tracer, names.SCHEMA_URL), sampling)
    own_meter = metrics.get_meter(names.SCOPE, "", meter, names.SCHEMA_URL)
    registry.observed = host_histograms(own_meter)
    show(registry, own_meter)
    return Providers(spans, tracer, meter, logger)


def _starter(
    tracer: TracerProvider, processor: SynchronousMultiSpanProcessor, settings: Settings
) -> SpanStarter:
    if not settings.traces or "none" in exporters("traces"):
        # Nothing is recorded, and the ids of every trace are passed on as they came.
        return OwnSpans(tracer, processor, Sampling(0, follows=False), settings.version)
    sampling = Sampling.of(tracer.sampler)
    if sampling is None:
        return HostSpans(tracer.get_tracer(names.SCOPE, settings.version, names.SCHEMA_URL), None)
    return OwnSpans(tracer, processor, sampling, settings.version)


def _spans(
    settings: Settings, losses: Losses, processor: SynchronousMultiSpanProcessor
) -> SpanQueue | None:
    chosen = exporters("traces") or ("otlp",)
    if "console" in chosen:
        processor.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    if not settings.traces or "otlp" not in chosen:
        return None
    endpoint = endpoint_of("traces", settings.endpoint)
    check_endpoint("traces", endpoint, allow_plaintext=settings.allow_plaintext)
    queue = SpanQueue(SpanExporter(endpoint), losses.of("traces"))
    processor.add_span_processor(queue)
    return queue


def _readers(settings: Settings, registry: Registry, losses: Losses) -> list[MetricReader]:
    chosen = exporters("metrics") or ("otlp",)
    made: list[MetricExporter] = []
    if settings.metrics and "otlp" in chosen:
        endpoint = endpoint_of("metrics", settings.endpoint)
        check_endpoint("metrics", endpoint, allow_plaintext=settings.allow_plaintext)
        made.append(OtlpMetrics(endpoint, HistogramJoin(registry), losses.of("metrics")))
    if settings.metrics and "console" in chosen:
        made.append(ConsoleMetrics(HistogramJoin(registry)))
    return [PeriodicExportingMetricReader(exporter) for exporter in made]


def _log_queues(settings: Settings, losses: Losses) -> list[LogQueue]:
    chosen = exporters("logs") or (("otlp",) if settings.logs else ())
    made: list[LogRecordExporter] = []
    if "otlp" in chosen:
        endpoint = endpoint_of("logs", settings.endpoint)
        check_endpoint("logs", endpoint, allow_plaintext=settings.allow_plaintext)
        made.append(OTLPLogExporter(endpoint=endpoint, timeout=timeout_of("logs")))
    if "console" in chosen:
        made.append(ConsoleLogRecordExporter())
    return [LogQueue(exporter, losses.of("logs")) for exporter in made]


def _logger(resource: Resource, queues: Sequence[LogQueue]) -> AnyLoggerProvider:
    if not queues:
        return NoOpLoggerProvider()
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for queue in queues:
        provider.add_log_record_processor(queue)
    return provider
