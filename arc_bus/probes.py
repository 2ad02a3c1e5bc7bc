"""Probes: `/health/live` and `/health/ready` over HTTP, for an orchestrator, as a plugin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from arc_bus.check import Check
from arc_bus.errors import ConfigError
from arc_bus.hookspecs import hookimpl
from arc_bus.http import MISSING, Page, serving

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.config import Config


class Probes:
    """Answers at `place` ("host:port", or ":port" for all addresses) while its bus runs.

    `/health/ready` is 200 while every check of `bus.health()` is well, else 503: a broker that is
    away or frozen, a subscription that has stopped, a plugin that says so. `/health/live` is 503
    only when a subscription has stalled, which a restart mends and a broker's absence is not; it
    answers as long as the event loop turns. Both give the checks as JSON. `port` is the one that
    is served, which tells where `place` says port 0.
    """

    plugin_name = "probes"

    def __init__(self, place: str | None = None) -> None:
        """Serve at `place`; the table `[probes]` of a configuration has it as `place`."""
        self.place = place
        self.port = 0

    @hookimpl
    def arc_configure(self, config: Config) -> None:
        """Read the table, and refuse what is not known."""
        table = config.settings.get(self.plugin_name, {})
        unknown = table.keys() - {"place"}
        if unknown:
            raise ConfigError(f"probes: unknown {', '.join(sorted(unknown))}; known: place")
        place: object = self.place or table.get("place")
        if not isinstance(place, str):
            raise ConfigError("probes: give their place, such as Probes('0.0.0.0:8080')")
        self.place = place

    @hookimpl
    def arc_lifespan(self, bus: Bus) -> AbstractAsyncContextManager[object]:
        """Answer from before the transports start until after they have stopped."""
        return self._answering(bus)

    @asynccontextmanager
    async def _answering(self, bus: Bus) -> AsyncGenerator[None]:
        assert self.place is not None, "arc_configure has refused a bus without it"

        async def answer(path: str) -> Page:
            if path not in ("/health/live", "/health/ready"):
                return MISSING
            checks = await bus.health()
            well = is_live(checks) if path == "/health/live" else all(check.ok for check in checks)
            told = {"status": "up" if well else "down", "service": bus.service, "checks": checks}
            return Page(200 if well else 503, "application/json", msgspec.json.encode(told))

        async with serving(self.place, answer) as self.port:
            yield


def is_live(checks: Sequence[Check]) -> bool:
    """Return whether nothing has stalled, so that a restart would mend nothing."""
    return not any(check.facts.get("stalled") for check in checks)
