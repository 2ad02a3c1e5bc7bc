"""arc_telemetry: what a message did, seen from outside: traces, metrics and logs by OpenTelemetry.

As a plugin, `Bus(plugins=["telemetry"])` traces and counts every message with the process's
telemetry, and `Bus(plugins=[Telemetry(...)])` with one of its own. By themselves: `init_otel` and
the helpers beside it. Importing this package loads nothing of OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from arc_bus.hookspecs import hookimpl
from arc_telemetry.current import (
    get_otel,
    get_trace_context,
    increment_counter,
    init_otel,
    record_error,
    record_histogram,
    record_latency,
    set_gauge,
    shutdown,
    trace_span,
)
from arc_telemetry.settings import Settings
from arc_telemetry.settings import from_table as _from_table
from arc_telemetry.telemetry import Telemetry
from arc_telemetry.trace_span import TraceSpan

if TYPE_CHECKING:
    from cyclopts import App

    from arc_bus.bus import Bus
    from arc_bus.check import Check, HealthCheck
    from arc_bus.config import Config
    from arc_bus.message import Message
    from arc_bus.middleware import ConsumeMiddleware, Operation, PublishMiddleware, Slot
    from arc_bus.notice import Observer
    from arc_bus.policy import Subscription

__all__ = [
    "Settings",
    "Telemetry",
    "TraceSpan",
    "get_otel",
    "get_trace_context",
    "increment_counter",
    "init_otel",
    "record_error",
    "record_histogram",
    "record_latency",
    "set_gauge",
    "shutdown",
    "trace_span",
]

# The module is the plugin of the name "telemetry": the hooks of the process's telemetry.


@hookimpl
def arc_configure(config: Config) -> None:
    """Start the process's telemetry with the table `[telemetry]`, if nothing has started it."""
    init_otel(config.service, _from_table(config.settings.get(Telemetry.plugin_name, {})))


@hookimpl
def arc_dependencies(bus: Bus) -> Mapping[type, Callable[[Message], object]]:
    """Give handlers that ask for a `Telemetry` the process's."""
    return get_otel().arc_dependencies(bus)


@hookimpl
def arc_publish_middleware(bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
    """Trace and time what is published."""
    return get_otel().arc_publish_middleware(bus, operation)


@hookimpl
def arc_consume_middleware(
    bus: Bus, subscription: Subscription
) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
    """Trace and time what is handled."""
    return get_otel().arc_consume_middleware(bus, subscription)


@hookimpl
def arc_lifespan(bus: Bus) -> AbstractAsyncContextManager[object]:
    """Trace statements of SQLAlchemy while the bus runs; export what waits when it stops."""
    return get_otel().arc_lifespan(bus)


@hookimpl
def arc_observers(bus: Bus) -> Sequence[Observer]:
    """Count what the bus reports."""
    return get_otel().arc_observers(bus)


@hookimpl
def arc_health(bus: Bus) -> Sequence[HealthCheck]:
    """Say how much telemetry was lost."""
    return get_otel().arc_health(bus)


@hookimpl
def arc_doctor(config: Config) -> Sequence[Callable[[], Check]]:
    """Look whether the collector can be reached."""
    table = config.settings.get(Telemetry.plugin_name, {})
    return Telemetry(config.service, _from_table(table)).arc_doctor(config)


@hookimpl
def arc_commands(app: App) -> None:
    """Add `arc-bus trace`."""
    from arc_telemetry.commands import trace

    app.command(trace)
