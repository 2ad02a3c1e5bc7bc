"""Recording: counters, gauges and histograms by name, as services use them without a bus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Self

from arc_bus.errors import ConfigError
from arc_telemetry import names
from arc_telemetry.metrics import Derived, Label, Number, Registry


class Recording:
    """What `Telemetry` records by name. Every method may be called from any thread.

    A metric is made on its first use; its kind, unit and bounds are those of that use. Past 2,000
    sets of attributes the rest is counted in one, marked `otel.metric.overflow`.
    """

    def __init__(self, service: str) -> None:
        """Keep what is recorded in a registry of its own."""
        self.service = service
        self.registry = Registry()

    def start(self, service: str = "") -> Self:
        """Make sure that what is recorded from now on is exported."""
        raise NotImplementedError

    @property
    def on(self) -> bool:
        """Whether anything is exported."""
        raise NotImplementedError

    def increment_counter(
        self, name: str, value: float = 1, attributes: Mapping[str, Label] | None = None
    ) -> None:
        """Add `value`, which must not be negative, to a counter; it is made on its first use."""
        if value < 0:
            raise ConfigError(f"counter {name!r}: {value} is negative; a gauge can go down")
        cell = self._number(name, attributes, gauge=False)
        with self.registry.lock:
            cell.value += value

    def set_gauge(
        self, name: str, value: float, attributes: Mapping[str, Label] | None = None
    ) -> None:
        """Set a gauge; what is exported is its last value."""
        self._number(name, attributes, gauge=True).value = value

    def observe_gauge(
        self, name: str, read: Callable[[], float], attributes: Mapping[str, Label] | None = None
    ) -> None:
        """Ask `read` for a gauge's value at each export of metrics, in the exporter's thread."""
        self.start()
        self.registry.gauge(name).put(attributes or {}, Derived(read))

    def _number(self, name: str, attributes: Mapping[str, Label] | None, *, gauge: bool) -> Number:
        self.start()
        with self.registry.lock:
            metric = self.registry.gauge(name) if gauge else self.registry.counter(name)
            cell = metric.cell(attributes or {})
        if not isinstance(cell, Number):
            raise ConfigError(f"metric {name!r} is read from elsewhere and cannot be set")
        return cell

    def record_histogram(
        self,
        name: str,
        value: float,
        attributes: Mapping[str, Label] | None = None,
        *,
        unit: str = "1",
        bounds: Sequence[float] = names.DURATION_BUCKETS,
    ) -> None:
        """Count `value` in a histogram; unit and bounds are those of its first use.

        Raises ConfigError for NaN, which belongs to no bucket.
        """
        if isnan(value):
            raise ConfigError(f"histogram {name!r}: NaN is not a value; leave it out")
        self.start()
        with self.registry.lock:
            self.registry.histogram(name, unit, bounds).cell(attributes or {}).observe(value)

    def record_latency(self, operation: str, milliseconds: float) -> None:
        """Count a latency in the histogram `<service>.latency`, in ms, by operation."""
        self.record_histogram(
            f"{self.start().service}.latency",
            milliseconds,
            {names.ARC_OPERATION: operation},
            unit="ms",
            bounds=names.LATENCY_BUCKETS,
        )

    def record_error(self, type: str, message: str) -> None:
        """Count an error in `<service>.errors` by type, and note it on the current span.

        `message` goes to the span only. It is the caller's to leave out what users said.
        """
        self.increment_counter(f"{self.start().service}.errors", 1, {names.ERROR_TYPE: type})
        if self.on:
            from opentelemetry.trace import get_current_span

            described = {names.ERROR_TYPE: type, names.ARC_ERROR_MESSAGE: message}
            get_current_span().add_event(names.EVENT_ERROR, described)
