"""Showing a `Registry` to OpenTelemetry: observable instruments, and histograms when it exports.

Counters and gauges are read by observable instruments, which any meter has. No API lets a library
hand over a histogram it has counted itself, so there are two ways: where the exporter is ours, it
adds them (`HistogramJoin`); where a host's meter is used, each value goes to a histogram of the
host (`host_histograms`), at OpenTelemetry's cost of 7 to 9 µs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Metric as ExportedMetric
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from arc_telemetry.metrics import Distribution, Kind, Labels, Metric, Readable, Registry
from arc_telemetry.names import SCHEMA_URL, SCOPE


def show(registry: Registry, meter: Meter) -> None:
    """Make every counter and gauge of `registry`, also those to come, readable through `meter`."""

    def on_new(metric: Metric[Readable] | Metric[Distribution]) -> None:
        if metric.kind is Kind.COUNTER:
            meter.create_observable_counter(metric.name, [_reader(metric)], metric.unit)
        elif metric.kind is Kind.GAUGE:
            meter.create_observable_gauge(metric.name, [_reader(metric)], metric.unit)

    registry.on_new = on_new
    for metric in registry:
        on_new(metric)


def _reader(
    metric: Metric[Readable] | Metric[Distribution],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> Iterable[Observation]:
        cells = cast("Mapping[Labels, Readable]", metric.cells)
        return [Observation(cell.read(), dict(labels)) for labels, cell in list(cells.items())]

    return read


def host_histograms(meter: Meter) -> Callable[[Metric[Distribution], Labels], Distribution]:
    """Return what makes histogram cells that observe into `meter`'s own instruments."""

    def make(metric: Metric[Distribution], labels: Labels) -> Distribution:
        instrument = meter.create_histogram(
            metric.name, metric.unit, explicit_bucket_boundaries_advisory=metric.bounds
        )
        attributes = dict(labels)

        def record(value: float) -> None:
            instrument.record(value, attributes)

        return HostCell(metric.bounds, record)

    return make


class HostCell(Distribution):
    """One set of labels of a host's histogram; counted here too, for what is derived from it."""

    __slots__ = ()

    def __init__(self, bounds: Sequence[float], record: Callable[[float], None]) -> None:
        """Give each value to `record` as well, at once: a host's reader asks when it likes."""
        super().__init__(bounds)
        keep = self.note

        def both(value: float) -> None:
            keep(value)
            record(value)

        self.note = both


class HistogramJoin:
    """Adds a registry's histograms to what one exporter is about to export."""

    def __init__(self, registry: Registry) -> None:
        """Count from now on."""
        self._registry = registry
        self._began = time.time_ns()
        self._before: Mapping[tuple[str, Labels], Counted] = {}

    def __call__(
        self, data: MetricsData, preferred: Mapping[type, AggregationTemporality] | None
    ) -> MetricsData:
        """Return `data` and the histograms, cumulative or as `preferred` of histograms says."""
        delta = (preferred or {}).get(HistogramInstrument) is AggregationTemporality.DELTA
        now = time.time_ns()
        present = {
            (metric.name, labels): cell.snapshot()
            for metric in self._registry.histograms
            for labels, cell in list(metric.cells.items())
        }
        metrics = self._exported(present, now, delta=delta)
        if delta:
            self._before, self._began = present, now
        if not metrics or not data.resource_metrics:
            return data
        scope = ScopeMetrics(InstrumentationScope(SCOPE, None, SCHEMA_URL), metrics, SCHEMA_URL)
        first = data.resource_metrics[0]
        joined = replace(first, scope_metrics=[*first.scope_metrics, scope])
        return MetricsData([joined, *data.resource_metrics[1:]])

    def _exported(
        self, present: Mapping[tuple[str, Labels], Counted], now: int, *, delta: bool
    ) -> Sequence[ExportedMetric]:
        kind = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        metrics: list[ExportedMetric] = []
        for metric in self._registry.histograms:
            points = [
                self._point(counted, self._before.get((name, labels)), metric.bounds, labels, now)
                for (name, labels), counted in present.items()
                if name == metric.name
            ]
            points = [point for point in points if point.count]
            if points:
                data = Histogram(points, kind)
                metrics.append(ExportedMetric(metric.name, None, metric.unit, data))
        return metrics

    def _point(
        self,
        counted: Counted,
        before: Counted | None,
        bounds: Sequence[float],
        labels: Labels,
        now: int,
    ) -> HistogramDataPoint:
        counts, total = counted
        if before is not None:
            counts = [new - old for new, old in zip(counts, before[0], strict=True)]
            total -= before[1]
        return HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=bounds,
            min=_NOT_KEPT,
            max=_NOT_KEPT,
        )


Counted: TypeAlias = tuple[Sequence[int], float]
"""How many values fell into each bucket, and their sum."""

_NOT_KEPT = cast("float", None)
"""Least and greatest value: OTLP lets both be absent; the SDK's dataclass does not say so."""
