"""Permissions: the least that one service needs at each broker, in that broker's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from arc_bus.errors import Unsupported
from arc_bus.policy import Subscription
from arc_bus.routing import check_pattern
from arc_bus.subscribing import dead_letter_pattern

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.transport import Transport


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a service does on one route.

    `publishes` are destinations and patterns that it publishes or sends requests to, `dead_letters`
    patterns where its dead letters go (it publishes them, and makes sure that they are kept).
    """

    service: str
    publishes: tuple[str, ...] = ()
    dead_letters: tuple[str, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()


def of_bus(bus: Bus, *, sends: Sequence[str] = ()) -> dict[str, str]:
    """Return, by the redacted URL of each route, the permissions that `bus` needs there.

    `bus` need not be started. What it receives and where its dead letters go is known from its
    subscriptions; what it publishes is known only while it runs, so `sends` names those
    destinations or patterns. A transport that knows no permissions, such as `memory://`, is left
    out. Raises RouteError, InvalidName.
    """
    sent: dict[Transport, set[str]] = {}
    dead: dict[Transport, set[str]] = {}
    received: dict[Transport, list[Subscription]] = {}
    serving = bus.routes.resolve_pattern
    for pattern in sends:
        check_pattern(pattern)
        sent.setdefault(serving(pattern).transport, set()).add(pattern)
    for handle in bus.handles:
        subscription = handle.subscription
        received.setdefault(serving(subscription.pattern).transport, []).append(subscription)
        buried = dead_letter_pattern(subscription)
        if buried is not None:
            dead.setdefault(serving(buried).transport, set()).add(buried)
    found: dict[str, str] = {}
    for attached in bus.transports:
        transport = attached.transport
        if not (transport in sent or transport in dead or transport in received):
            continue
        needs = Needs(
            service=bus.service,
            publishes=tuple(sorted(sent.get(transport, ()))),
            dead_letters=tuple(sorted(dead.get(transport, ()))),
            subscriptions=tuple(received.get(transport, ())),
        )
        try:
            found[attached.url] = transport.permissions(needs)
        except Unsupported:
            continue
    return found
