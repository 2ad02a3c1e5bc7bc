"""Scene: one subject of a lab with services on it, where they all mean the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeAlias

import msgspec

from arc_bus.bus import Bus
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Retry
from arc_bus.testing.lab import Lab

Handling: TypeAlias = Callable[..., Awaitable[object]]

SOON = Retry(attempts=3, first=0.01, jitter=0)


class Work(msgspec.Struct):
    """What the handlers of a scene get."""

    number: int
    key: str = ""


class Scene:
    """One subject, where its dead letters go, and a publisher beside the services under check."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.subject = lab.subject()
        self.dead = lab.subject("dead")
        self.group = lab.group()
        self.publisher = lab.bus()
        self.handled: list[int] = []
        self.notices: list[Notice] = []

    async def __aenter__(self) -> Self:
        await self.publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.publisher.close()

    async def note(self, work: Work) -> None:
        """Handle by noting the number."""
        self.handled.append(work.number)
        self.lab.changed()

    def service(self, handler: Handling, **settings: Any) -> Bus:
        """Return a bus, not started, that handles the subject."""
        bus = self.lab.bus()
        self.serve(bus, handler, **settings)
        return bus

    def serve(self, bus: Bus, handler: Handling, **settings: Any) -> None:
        """Subscribe a handler to the subject; what the bus reports is noted."""
        asked: dict[str, Any] = {
            "group": self.group,
            "retry": SOON,
            "dead_letter": self.dead,
            "options": self.lab.harness.options(),
        }
        bus.subscribe(self.subject, handler, **(asked | settings))
        bus.observe(self._observe)

    def _observe(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.lab.changed()

    def told(self, kind: NoticeKind) -> int:
        """Return how many messages the notices of one kind were about."""
        return sum(notice.count for notice in self.notices if notice.kind is kind)

    async def publish(self, *numbers: int) -> None:
        """Publish these, each when the one before is confirmed."""
        for number in numbers:
            await self.publisher.publish(self.subject, Work(number), message_id=f"work-{number}")

    async def all_handled(self, *numbers: int) -> None:
        """Wait until each of these was handled, once."""
        wanted = sorted(numbers)
        await self.lab.until(
            lambda: set(wanted) <= set(self.handled),
            lambda: f"only {sorted(self.handled)} of {wanted} were handled",
        )
        self.lab.expect(
            sorted(self.handled) == wanted, f"{sorted(self.handled)} were handled, not {wanted}"
        )
