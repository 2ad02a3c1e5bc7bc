"""Backlog: how much waits, asked from time to time while a bus runs.

At the broker for each subscription, in this process, and in the outbox of a plugin that keeps one.
What cannot be told (a broker without the figure, or one that does not answer) has no value then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from arc_bus.errors import ArcBusError
from arc_telemetry import names
from arc_telemetry.destinations import Destinations
from arc_telemetry.metrics import Label, Number, Registry
from arc_telemetry.timing import group_labels

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.subscribing import Handle

ANSWER = 2.0
"""Seconds in which a broker or database must answer how much waits."""


class Outbox(Protocol):
    """What a plugin's `outbox` can tell."""

    async def depth(self) -> tuple[int, float]:
        """Return how many messages wait, and the age of the oldest in seconds."""
        ...


@runtime_checkable
class KeepsOutbox(Protocol):
    """A plugin that relays messages out of a database."""

    @property
    def outbox(self) -> Outbox:
        """The messages that wait."""
        ...


class Backlog:
    """Asks, and keeps the answers as gauges."""

    def __init__(self, registry: Registry, bus: Bus, destinations: Destinations) -> None:
        """Ask about `bus`."""
        self._bus = bus
        self._destinations = destinations
        self._waiting = registry.gauge(names.ARC_BACKLOG, "{message}")
        self._held = registry.gauge(names.ARC_HELD, "{message}")
        self._depth = registry.gauge(names.ARC_OUTBOX_DEPTH, "{message}")
        self._age = registry.gauge(names.ARC_OUTBOX_AGE, "s")

    async def run(self, every: float) -> None:
        """Ask every so many seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.ask()

    async def ask(self) -> None:
        """Ask once. Never raises but CancelledError."""
        for handle in self._bus.handles:
            labels = self._labels(handle)
            _set(self._held.cell(labels), handle.in_flight)
            try:
                async with asyncio.timeout(ANSWER):
                    waiting = await handle.pending()
            except (ArcBusError, TimeoutError):
                continue
            if waiting is not None:
                _set(self._waiting.cell(labels), waiting)
        for name in self._bus.plugins.names:
            plugin = self._bus.plugins.get(name)
            if isinstance(plugin, KeepsOutbox):
                await self._ask_outbox(plugin.outbox, {names.ARC_PLUGIN: name})

    async def _ask_outbox(self, outbox: Outbox, labels: Mapping[str, Label]) -> None:
        try:
            async with asyncio.timeout(ANSWER):
                depth, age = await outbox.depth()
        except (ArcBusError, TimeoutError):
            return
        _set(self._depth.cell(labels), depth)
        _set(self._age.cell(labels), age)

    def _labels(self, handle: Handle) -> dict[str, Label]:
        subscription = handle.subscription
        system = self._destinations.of_pattern(subscription.pattern).system
        return {
            names.SYSTEM: system,
            names.DESTINATION_TEMPLATE: subscription.pattern,
            **group_labels(subscription.group, system),
        }


def _set(cell: object, value: float) -> None:
    assert isinstance(cell, Number)
    cell.value = value
