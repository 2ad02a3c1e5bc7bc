"""Arena: a transport to be broken, and the ways to break it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import msgspec

from arc_bus.bus import Bus
from arc_bus.config import Route
from arc_bus.testing.chaos.watch import Watch
from arc_bus.testing.faults import Proxy
from arc_bus.transport import Delivery, TransportFactory

Fault: TypeAlias = Callable[[random.Random], AbstractAsyncContextManager[None]]
"""Makes a fault that lasts as long as its context; what it leaves to chance, the dice say."""


class Arena(msgspec.Struct, kw_only=True):
    """Where the load runs.

    `publishing` and `reading` are the routes of the two sides, so that each can be broken by
    itself; `destination` what is published to. `faults` are by name; `patience` is how many
    seconds it may take after one until messages flow again. `factories` make the transports of
    those schemes. A connection of `proxies` that comes or goes explains what comes again: it may
    break long after the fault that it did not get over.
    """

    name: str
    destination: str
    publishing: Mapping[str, str | Route]
    reading: Mapping[str, str | Route]
    faults: Mapping[str, Fault]
    factories: Mapping[str, TransportFactory]
    patience: float = 30.0
    proxies: tuple[Proxy, ...] = ()

    def bus(
        self,
        service: str,
        routes: Mapping[str, str | Route],
        arrived: Callable[[Delivery], None] = lambda _: None,
    ) -> Bus:
        """Return a bus of one side, not started; `arrived` sees what it is delivered."""
        return Bus(service, routes, plugins=[Watch(self.factories, arrived)])
