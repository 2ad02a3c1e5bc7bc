"""The SDK's metric exporters, with histograms that were counted here.

Their `export` takes keywords of any type, which pyright calls partly unknown.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExportResult,
    MetricsData,
)

from arc_telemetry.instruments import HistogramJoin
from arc_telemetry.otlp import timeout_of


class OtlpMetrics(OTLPMetricExporter):
    """The SDK's exporter, with a registry's histograms, and a count of what did not arrive."""

    def __init__(
        self, endpoint: str, join: HistogramJoin, lost: Callable[[int, str], None]
    ) -> None:
        super().__init__(endpoint=endpoint, timeout=timeout_of("metrics"))
        self._join = join
        self._lost = lost

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Export what the SDK collected, and the histograms."""
        joined = self._join(metrics_data, self._preferred_temporality)
        result = super().export(joined, timeout_millis)  # pyright: ignore[reportUnknownMemberType]
        if result is not MetricExportResult.SUCCESS:
            self._lost(1, "export")
        return result


class ConsoleMetrics(ConsoleMetricExporter):
    """The SDK's exporter to standard output, with a registry's histograms."""

    def __init__(self, join: HistogramJoin) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._join = join

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Export what the SDK collected, and the histograms."""
        joined = self._join(metrics_data, self._preferred_temporality)
        return super().export(joined, timeout_millis)  # pyright: ignore[reportUnknownMemberType]
