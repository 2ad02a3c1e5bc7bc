"""Telemetry: one service's traces, metrics and logs; a plugin of the bus, and useful without one.

OpenTelemetry is imported when it is used, not when this module is, so that the package can be
imported without its extra. The only state kept between calls is OpenTelemetry's own: its global
providers. `_BY_PROVIDER` tells which `Telemetry` belongs to one of those.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from arc_bus.check import Check, HealthCheck
from arc_bus.hookspecs import hookimpl
from arc_bus.middleware import ConsumeMiddleware, Operation, PublishMiddleware, Slot
from arc_bus.notice import Observer
from arc_telemetry import names
from arc_telemetry.diagnosis import LossCheck, reach_collector
from arc_telemetry.installed import check_installed
from arc_telemetry.metrics import Label
from arc_telemetry.notices import NoticeCounter
from arc_telemetry.recording import Recording
from arc_telemetry.settings import Settings, from_table, switched_off
from arc_telemetry.trace_span import TraceSpan

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from arc_bus.bus import Bus
    from arc_bus.config import Config
    from arc_bus.message import Message
    from arc_bus.policy import Subscription
    from arc_telemetry.metrics import Registry
    from arc_telemetry.providers import Providers
    from arc_telemetry.tracing import SpanStarter

_BY_PROVIDER: WeakKeyDictionary[object, Telemetry] = WeakKeyDictionary()
"""Keeps nothing alive that OpenTelemetry does not keep itself."""


def started() -> Telemetry | None:
    """Return the telemetry that `install()` made the process's; None if there is none."""
    check_installed()
    from opentelemetry import trace

    return _BY_PROVIDER.get(trace.get_tracer_provider())


def of_process() -> Telemetry | None:
    """Return the process's telemetry, making one where a host application has set the providers."""
    found = started()
    if found is not None:
        return found
    from opentelemetry import trace

    is_set = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return Telemetry().install() if is_set else None


class Telemetry(Recording):
    """What one service tells of itself. Give it to `Bus(plugins=[...])`, or use it by itself.

    It starts at the latest with its bus, or with its first use, or by `start()`; then it uses, in
    this order: the providers given here; OpenTelemetry's global providers, if a host application
    has set them; its own, which export OTLP over gRPC as the `OTEL_*` variables say. With
    `OTEL_SDK_DISABLED=true` or `Settings(enabled=False)` nothing is made or installed, and every
    method does nothing. Leaving `async with`, or `shutdown()`, exports what waits.

    Raises MissingExtra on first use without the extra `telemetry`, ConfigError for a variable or
    setting that cannot work. No failure of a collector is ever raised: losses are counted in
    `arc.telemetry.lost`.
    """

    plugin_name = "telemetry"

    def __init__(
        self,
        service: str = "",
        settings: Settings | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        """Make nothing yet. `service` defaults to the bus's; so do `settings` to its table."""
        super().__init__(service)
        self.registry: Registry
        self.settings = settings or Settings()
        self._configurable = settings is None
        self._given = (tracer_provider, meter_provider, logger_provider)
        self._providers: Providers | None = None
        self._started = False
        self._lock = threading.Lock()
        self._losses: LossCheck | None = None
        self._bridge: logging.Handler | None = None

    # -- life -----------------------------------------------------------------------------------

    def start(self, service: str = "") -> Self:
        """Make or find the providers; later calls change nothing. `service` is used if none was."""
        with self._lock:
            if self._started:
                return self
            self.service = self.service or service or "arc-bus"
            if self.settings.enabled and not switched_off():
                self._providers = self._find_providers()
                atexit.register(self.shutdown)
                self._bridge_logs(self._providers)
            self._started = True
        return self

    def _find_providers(self) -> Providers:
        check_installed()
        from opentelemetry import _logs, metrics, trace

        from arc_telemetry import providers

        tracer, meter, logger = self._given
        globally = trace.get_tracer_provider()
        known = _BY_PROVIDER.get(globally)
        if known is not None and known._providers is not None and not any(self._given):
            # The process's telemetry has set them: count with it, for a meter reads one callback.
            self.registry = known.registry
            return known._providers
        if any(self._given) or not isinstance(globally, trace.ProxyTracerProvider):
            return providers.host(
                tracer or globally,
                meter or metrics.get_meter_provider(),
                logger or _logs.get_logger_provider(),
                self.registry,
            )
        return providers.own(self.service, self.settings, self.registry)

    def _bridge_logs(self, providers: Providers) -> None:
        if self.settings.logs:
            from arc_telemetry.logs import LogBridge

            self._bridge = LogBridge(providers.logger)
            logging.getLogger().addHandler(self._bridge)

    def install(self) -> Self:
        """Become the process's telemetry: start, and set OpenTelemetry's globals if unset."""
        self.start()
        check_installed()
        from opentelemetry import metrics, trace

        ours = self._providers
        if ours is not None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(ours.tracer)
            metrics.set_meter_provider(ours.meter)
        _BY_PROVIDER[trace.get_tracer_provider()] = self
        return self

    @property
    def on(self) -> bool:
        """Whether anything is recorded; False before the start, and when switched off."""
        return self._providers is not None

    @property
    def tracer_provider(self) -> TracerProvider | None:
        """OpenTelemetry's provider that is in use, for other libraries; None when off."""
        return self._providers.tracer if self._providers is not None else None

    @property
    def meter_provider(self) -> MeterProvider | None:
        """The same for meters."""
        return self._providers.meter if self._providers is not None else None

    def flush(self, timeout: float = 5.0) -> bool:
        """Export what waits; True if that was done in `timeout` seconds. Blocks; never raises."""
        return self._providers is None or self._providers.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Export what waits and stop, within `timeout` seconds.

        By default `stop_within` (5), less what a bus that has just stopped has waited in vain:
        both together take no longer. True if everything was exported. Blocks, never raises,
        idempotent. A host's providers are left alone.
        """
        if self._bridge is not None:
            logging.getLogger().removeHandler(self._bridge)
        providers, self._providers = self._providers, None
        atexit.unregister(self.shutdown)
        if providers is None:
            return True
        seconds = providers.left_of(self.settings.stop_within) if timeout is None else timeout
        return providers.stop(seconds)

    async def __aenter__(self) -> Self:
        """Start; see `start()`."""
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        """Shut down, without blocking the event loop."""
        await asyncio.to_thread(self.shutdown)

    # -- helpers --------------------------------------------------------------------------------

    def trace_span(
        self,
        name: str,
        attributes: Mapping[str, Label] | None = None,
        *,
        record_exceptions: bool = False,
    ) -> TraceSpan:
        """Return a span for `with`, `async with`, or as a decorator; see `TraceSpan`."""
        return TraceSpan(self.starter, name, attributes, record_exceptions=record_exceptions)

    def starter(self) -> SpanStarter | None:
        """Return what starts spans, for `instrument_engine`; None when switched off."""
        providers = self.start()._providers
        return providers.spans if providers is not None else None

    def get_trace_context(self) -> dict[str, str]:
        """Return `trace_id`, `span_id`, `traceparent` of the current span; empty outside one."""
        if self.start()._providers is None:
            return {}
        from opentelemetry.trace import get_current_span

        from arc_telemetry.span import parent_of

        me = parent_of(get_current_span())
        if me is None:
            return {}
        found = {"trace_id": me.trace_id, "span_id": me.span_id, names.TRACEPARENT: me.header}
        return {**found, names.TRACESTATE: me.state} if me.state else found

    # -- as a plugin ----------------------------------------------------------------------------

    @hookimpl
    def arc_configure(self, config: Config) -> None:
        """Take the table `[telemetry]`, unless settings were given here."""
        table = config.settings.get(self.plugin_name)
        if table is not None and self._configurable and not self._started:
            self.settings = from_table(table)

    @hookimpl
    def arc_dependencies(self, bus: Bus) -> Mapping[type, Callable[[Message], object]]:
        """Give handlers that ask for a `Telemetry` this one."""
        self.start(bus.service)
        return {Telemetry: lambda _message: self}

    @hookimpl
    def arc_publish_middleware(self, bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
        """Trace and time what is published; nothing when switched off."""
        if (providers := self.start(bus.service)._providers) is None:
            return ()
        from arc_telemetry import wiring

        return wiring.publishing(providers.spans, self.registry, self.settings, bus, operation)

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        """Trace and time what is handled; nothing when switched off."""
        if (providers := self.start(bus.service)._providers) is None:
            return ()
        from arc_telemetry import wiring

        return wiring.consuming(providers.spans, self.registry, self.settings, bus, subscription)

    @hookimpl
    def arc_lifespan(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        """While the bus runs, trace statements and ask for backlogs; then export what waits."""
        from arc_telemetry import wiring

        providers = self.start(bus.service)._providers
        return wiring.lifespan(providers, self.registry, self.settings, bus)

    @hookimpl
    def arc_observers(self, bus: Bus) -> Sequence[Observer]:
        """Count what the bus reports, and note failed attempts; nothing when switched off."""
        if not self.start(bus.service).on:
            return ()
        from arc_telemetry.consuming import note_failed_attempt

        return (NoticeCounter(self.registry).observe, note_failed_attempt)

    @hookimpl
    def arc_health(self, bus: Bus) -> Sequence[HealthCheck]:
        """Say how much telemetry was lost; nothing when switched off."""
        if not self.start(bus.service).on:
            return ()
        if self._losses is None:
            self._losses = LossCheck(self.registry)
        return (self._losses.check,)

    @hookimpl
    def arc_doctor(self, config: Config) -> Sequence[Callable[[], Check]]:
        """Look whether the collector can be reached."""
        return (lambda: reach_collector(self.settings.endpoint),)
