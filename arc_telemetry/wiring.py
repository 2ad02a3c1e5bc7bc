"""From a bus to its middleware: what each needs to know, looked up once at start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from arc_bus.middleware import ConsumeMiddleware, Operation, PublishMiddleware, Slot
from arc_telemetry.backlog import Backlog
from arc_telemetry.baggage import Baggage
from arc_telemetry.consuming import ConsumeTracing
from arc_telemetry.database import StatementTracing
from arc_telemetry.destinations import Destinations
from arc_telemetry.metrics import Registry
from arc_telemetry.prometheus import page, resource_of
from arc_telemetry.publishing import PublishTracing
from arc_telemetry.settings import Settings
from arc_telemetry.timing import BusMetrics
from arc_telemetry.tracing import SpanStarter

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.policy import Subscription
    from arc_telemetry.providers import Providers


def publishing(
    spans: SpanStarter, registry: Registry, settings: Settings, bus: Bus, operation: Operation
) -> Sequence[PublishMiddleware]:
    """Return the wrappers of a bus's publish or request pipeline."""
    baggage = Baggage() if settings.baggage else None
    places = destinations_of(bus, settings)
    return (PublishTracing(spans, BusMetrics(registry), places, operation, baggage).middleware(),)


def consuming(
    spans: SpanStarter, registry: Registry, settings: Settings, bus: Bus, subscription: Subscription
) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
    """Return the wrappers of one subscription, with their slots."""
    return ConsumeTracing(
        spans,
        BusMetrics(registry),
        destinations_of(bus, settings).of_pattern(subscription.pattern),
        subscription,
        relation=settings.relation,
        baggage=Baggage() if settings.baggage else None,
    ).middleware()


def destinations_of(bus: Bus, settings: Settings) -> Destinations:
    """Return the places of a bus: its routes, its contracts' destinations, the set templates."""
    routes = [
        (prefix, route if isinstance(route, str) else route.url)
        for prefix, route in bus.config.routes.items()
    ]
    return Destinations(routes, [*settings.templates, *(c.destination for c in bus.registry)])


@asynccontextmanager
async def lifespan(
    providers: Providers | None, registry: Registry, settings: Settings, bus: Bus
) -> AsyncGenerator[None]:
    """While the bus runs, trace statements and ask for backlogs; then export what waits."""
    if providers is None:
        yield
        return
    statements = StatementTracing(providers.spans)
    if settings.database:
        statements.start(only_if_loaded="store" not in bus.plugins.names)
    backlog = Backlog(registry, bus, destinations_of(bus, settings))
    async with AsyncExitStack() as stack:
        if settings.prometheus:
            who = resource_of(bus.service, settings.version, settings.environment)
            await stack.enter_async_context(page(registry, settings.prometheus, who))
        asking = asyncio.create_task(backlog.run(settings.ask_every))
        stack.callback(asking.cancel)
        stack.callback(statements.stop)
        try:
            yield
        finally:
            # The other half is for the shutdown that follows, where the collector is not there.
            flush = partial(providers.flush, settings.stop_within / 2, metrics=False)
            await asyncio.to_thread(flush)
