"""Topology: what a broker must hold for contracts and subscriptions, and how it differs from that.

Streams, consumers, tenants, namespaces, topics: which of them there are is a plugin's own
knowledge, given by the hook `arc_topologies`. Transports make what a service cannot do without when
they start; a topology makes all of it, before a service runs, and finds what somebody altered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from arc_bus.attach import endpoint_of
from arc_bus.contracts.registry import Contract
from arc_bus.errors import RouteError
from arc_bus.outlet import Attached
from arc_bus.policy import Subscription
from arc_bus.routing import Routes
from arc_bus.subscribing import dead_letter_pattern
from arc_bus.transport import Endpoint

if TYPE_CHECKING:
    from arc_bus.bus import Bus


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What one place must serve: all that is routed to it.

    `dead` are the destinations and patterns to which `subscriptions`, here or elsewhere, send
    their dead letters.
    """

    contracts: tuple[Contract, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    dead: tuple[str, ...] = ()


class Action(StrEnum):
    """What a change does. REPLACE removes what is there, with its messages, and makes it anew."""

    CREATE = "create"
    ALTER = "alter"
    REPLACE = "replace"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between what is declared and what is there, and the step that mends it.

    `kind` is the broker's own word (stream, namespace), `detail` has both values. A `destructive`
    step loses messages or a reader's position. `apply` raises ArcBusError when it is refused.
    """

    kind: str
    name: str
    action: Action
    apply: Callable[[], Awaitable[None]]
    detail: str = ""
    destructive: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What one group has before it at the broker; `group` is empty where nobody reads.

    `waiting` messages were not delivered yet, `unsettled` were and have no verdict. Pulsar counts
    entries, of which a publisher's batch is one.
    """

    destination: str
    group: str
    waiting: int
    unsettled: int = 0


class Topology(Protocol):
    """One connection to one place, for as long as its context is open."""

    async def plan(self, declared: Declared) -> list[Change]:
        """Return what is missing or different, in the order in which it must be mended.

        What is there and not declared belongs to others and is left alone.
        """
        ...

    async def backlog(self) -> list[Waiting]:
        """Return what waits for every group on the streams or topics of the endpoint's prefixes."""
        ...


TopologyFactory: TypeAlias = Callable[[Endpoint], AbstractAsyncContextManager[Topology]]
"""Opens the topology of an endpoint; raises ConnectFailed, ConfigError. Changes nothing by that."""


class Place(msgspec.Struct, frozen=True):
    """One place that has a topology: its URL without secrets, what is declared, how to open it."""

    url: str
    declared: Declared
    open: Callable[[], AbstractAsyncContextManager[Topology]]


def places(bus: Bus) -> Iterator[Place]:
    """Iterate over the places that `bus` is routed to, where there is something to be made.

    The bus may be started or not.
    """
    seen: set[int] = set()
    pairs = zip(bus.config.routes.values(), bus.routes.items(), strict=True)
    for route, (_, attached) in pairs:
        endpoint = endpoint_of(bus.config, route, bus.report)
        factory = bus.plugins.topology(endpoint.url)
        if factory is None or id(attached.transport) in seen:
            continue
        seen.add(id(attached.transport))
        yield Place(attached.url, _declared(bus, attached), partial(factory, endpoint))


def _declared(bus: Bus, attached: Attached) -> Declared:
    subscriptions = [handle.subscription for handle in bus.handles]
    dead = [pattern for one in subscriptions if (pattern := dead_letter_pattern(one))]

    def here(pattern: str) -> bool:
        return _leads_to(bus.routes, pattern, attached)

    return Declared(
        contracts=tuple(one for one in bus.registry if here(one.destination)),
        subscriptions=tuple(one for one in subscriptions if here(one.pattern)),
        dead=tuple(dict.fromkeys(pattern for pattern in dead if here(pattern))),
    )


def _leads_to(routes: Routes[Attached], pattern: str, attached: Attached) -> bool:
    try:
        return routes.resolve_pattern(pattern).transport is attached.transport
    except RouteError:  # a contract of destinations that this service has no use for
        return False
