"""What the core's tests share: virtual time, buses over memory, and waiting without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import pytest

from arc_bus import Bus, Notice, NoticeKind
from arc_bus.testing.virtual_time import VirtualTimeLoop

Until: TypeAlias = Callable[[Callable[[], object]], Awaitable[None]]
Factories: TypeAlias = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "virtual_time: runs in an event loop whose waits cost nothing"
    )


def pytest_asyncio_loop_factories(item: pytest.Item) -> Factories:
    """Give virtual time to what is marked so, and the usual loop to all else."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, at most 30 s of the loop's time."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - the condition is anything, not an event
                await asyncio.sleep(0.001)

    return wait


class Seen(list[Notice]):
    """The notices that a bus has reported, in order."""

    def of(self, kind: NoticeKind) -> list[Notice]:
        """Return those of one kind."""
        return [notice for notice in self if notice.kind is kind]

    def count(self, kind: NoticeKind) -> int:  # type: ignore[override]
        """Return how many messages those of one kind are about."""
        return sum(notice.count for notice in self.of(kind))


@pytest.fixture
def seen() -> Seen:
    """Collect notices: `bus.observe(seen.append)`."""
    return Seen()


@pytest.fixture
def memory_bus(seen: Seen) -> Callable[..., Bus]:
    """Make a bus whose every destination is in memory and whose notices are in `seen`."""

    def make(url: str = "memory://", **settings: object) -> Bus:
        made = Bus("service", {"": url}, **settings)  # type: ignore[arg-type]
        made.observe(seen.append)
        return made

    return make
