"""Watch: a plugin that sees each delivery arrive, long before its handler may begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from arc_bus.hookspecs import hookimpl
from arc_bus.policy import Subscription
from arc_bus.testing.wrapper import Wrapped
from arc_bus.transport import Deliver, Delivery, Endpoint, Feed, Transport, TransportFactory


class Watch:
    """Wraps transports, and calls `arrived` with every delivery before the bus has it."""

    def __init__(
        self, factories: Mapping[str, TransportFactory], arrived: Callable[[Delivery], None]
    ) -> None:
        """Wrap what `factories` make."""
        self._factories = factories
        self._arrived = arrived

    @hookimpl
    def arc_transports(self) -> Mapping[str, TransportFactory]:
        """Serve the same schemes."""
        return {s: partial(self._make, factory) for s, factory in self._factories.items()}

    def _make(self, factory: TransportFactory, endpoint: Endpoint) -> Transport:
        return _Watched(factory(endpoint), self._arrived)


class _Watched(Wrapped):
    def __init__(self, inner: Transport, arrived: Callable[[Delivery], None]) -> None:
        super().__init__(inner)
        self._arrived = arrived

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        def arrive(batch: list[Delivery]) -> None:
            for delivery in batch:
                self._arrived(delivery)
            deliver(batch)

        return await self.inner.subscribe(subscription, arrive)
