"""The seed's helpers: one telemetry for the process, behind OpenTelemetry's global providers.

Services call these without carrying an object around. `init_otel` sets OpenTelemetry's global
providers if no host application has, and `get_otel` finds what belongs to them; before
`init_otel` the others work on whatever the global providers are, which is nothing by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arc_telemetry import names
from arc_telemetry.metrics import Label
from arc_telemetry.settings import Settings
from arc_telemetry.telemetry import Telemetry, of_process, started
from arc_telemetry.trace_span import TraceSpan


def init_otel(service: str, settings: Settings | None = None) -> Telemetry:
    """Start telemetry for this process, and return it; later calls return the first one's.

    Sets OpenTelemetry's global providers, or uses them if they are set. Raises MissingExtra,
    ConfigError.
    """
    return started() or Telemetry(service, settings).install()


def get_otel() -> Telemetry:
    """Return the process's telemetry; one that does nothing before `init_otel`.

    Where a host application has set OpenTelemetry's global providers, it uses those.
    """
    return of_process() or Telemetry(settings=Settings(enabled=False)).start()


def trace_span(
    name: str,
    attributes: Mapping[str, Label] | None = None,
    *,
    record_exceptions: bool = False,
) -> TraceSpan:
    """Return a span for `with`, `async with`, or as a decorator, also before `init_otel`."""
    return TraceSpan(
        lambda: get_otel().starter(), name, attributes, record_exceptions=record_exceptions
    )


def increment_counter(
    name: str, value: float = 1, attributes: Mapping[str, Label] | None = None
) -> None:
    """Add to a counter; see `Telemetry.increment_counter`."""
    get_otel().increment_counter(name, value, attributes)


def record_histogram(
    name: str,
    value: float,
    attributes: Mapping[str, Label] | None = None,
    *,
    unit: str = "1",
    bounds: Sequence[float] = names.DURATION_BUCKETS,
) -> None:
    """Count a value in a histogram; see `Telemetry.record_histogram`."""
    get_otel().record_histogram(name, value, attributes, unit=unit, bounds=bounds)


def set_gauge(name: str, value: float, attributes: Mapping[str, Label] | None = None) -> None:
    """Set a gauge; see `Telemetry.set_gauge`."""
    get_otel().set_gauge(name, value, attributes)


def record_latency(operation: str, milliseconds: float) -> None:
    """Count a latency in `<service>.latency`; see `Telemetry.record_latency`."""
    get_otel().record_latency(operation, milliseconds)


def record_error(type: str, message: str) -> None:
    """Count an error in `<service>.errors`; see `Telemetry.record_error`."""
    get_otel().record_error(type, message)


def get_trace_context() -> dict[str, str]:
    """Return the ids of the current span; see `Telemetry.get_trace_context`."""
    return get_otel().get_trace_context()


def shutdown(timeout: float | None = None) -> bool:
    """Export what waits and stop; see `Telemetry.shutdown`."""
    return get_otel().shutdown(timeout)
