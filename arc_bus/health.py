"""Health: how a running bus is, asked of its transports, its subscriptions and its plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

from arc_bus.check import Check
from arc_bus.errors import ArcBusError

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.consumer import Consumer
    from arc_bus.outlet import Attached
    from arc_bus.policy import Subscription

PATIENCE = 2.0
"""Seconds that any one check may take; a broker that does not answer by then is not well."""

STALLED_AFTER = 10.0
"""Seconds in which a subscription may receive nothing, although messages wait for it."""


async def health_of(bus: Bus) -> list[Check]:
    """Return every check of `bus`, made at the same time; none raises or takes over `PATIENCE`."""
    asked = [
        *(_asked(one.url, _round_trip(one)) for one in bus.transports),
        *(
            _asked(
                handle.subscription.pattern,
                handle.health(bus.lost.get(handle.subscription.pattern, 0)),
            )
            for handle in bus.handles
        ),
        *(_asked("plugin", check()) for check in bus.plugins.health(bus)),
    ]
    return list(await asyncio.gather(*asked))


async def _asked(name: str, check: Awaitable[Check]) -> Check:
    try:
        return await asyncio.wait_for(check, PATIENCE)
    except TimeoutError:
        return Check(name=name, ok=False, detail=f"no answer within {PATIENCE:g} s")
    except Exception as error:
        return Check(name=name, ok=False, detail=f"{type(error).__name__}: {error}")


async def _round_trip(one: Attached) -> Check:
    problem = await one.transport.health()
    detail = "; ".join((problem or "round trip made", *one.transport.remarks))
    return Check(name=one.url, ok=problem is None, detail=detail)


class Attendance:
    """Judges one subscription, from one look at it to the next."""

    def __init__(self) -> None:
        """Suspect nothing yet."""
        self._suspected: float | None = None
        self._received = 0

    async def check(
        self, subscription: Subscription, consumer: Consumer | None, lost: int
    ) -> Check:
        """Return how the subscription is, with its numbers in `facts`.

        It is well unless it has stopped or stalled; `paused` (by a handle, a breaker or its rate)
        is told and no fault. `stalled` tells that for `STALLED_AFTER` seconds it has received
        nothing, while messages waited at the broker and none was held here: its connection may be
        open all the same. `lag` is how many wait, None where the transport cannot tell; `idle` the
        seconds since the last message, None before the first; `lost` what was dropped or abandoned.
        """
        name = subscription.pattern
        if consumer is None:
            return Check(name=name, ok=False, detail="not active")
        lag = None
        with suppress(ArcBusError):  # its transport's own check says what is wrong
            lag = await consumer.pending()
        stalled = self._stalled(consumer, lag)
        facts: dict[str, object] = {
            "group": subscription.group,
            "consuming": not (consumer.stopped or stalled),
            "stalled": stalled,
            "paused": consumer.paused,
            "received": consumer.received,
            "idle": round(consumer.idle, 3) if consumer.received else None,
            "in_flight": consumer.in_flight,
            "running": consumer.running,
            "lag": lag,
            "lost": lost,
        }
        state = (
            f"stalled: {lag} wait, nothing received for {STALLED_AFTER:g} s"
            if stalled
            else "stopped"
            if consumer.stopped
            else "paused"
            if consumer.paused
            else "consuming"
        )
        numbers = ", ".join(f"{key} {facts[key]}" for key in ("received", "in_flight", "lost"))
        remedy = "restart the service; see what its log says of this route" if stalled else ""
        ok = bool(facts["consuming"])
        return Check(name=name, ok=ok, detail=f"{state}; {numbers}", remedy=remedy, facts=facts)

    def _stalled(self, consumer: Consumer, lag: int | None) -> bool:
        now = asyncio.get_running_loop().time()
        idle = bool(lag) and not consumer.in_flight and not consumer.paused
        if not idle or consumer.stopped or consumer.received != self._received:
            self._received = consumer.received
            self._suspected = None
            return False
        if self._suspected is None:
            self._suspected = now
        return now - self._suspected >= STALLED_AFTER
