"""Mutants that keep badly what is to be browsed."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio
from collections.abc import AsyncIterator

from arc_bus.testing.mutants.mutant import Mutant
from arc_bus.transport import Delivery, Outgoing


class BrowsesBackwards(Mutant):
    """Shows the newest first."""

    killed_by = ("K1", "K5")

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        for delivery in reversed([each async for each in self.inner.browse(pattern)]):
            yield delivery


class DiscardsAllBefore(Mutant):
    """Discards with a message all that are older."""

    killed_by = ("K2",)

    async def discard(self, delivery: Delivery) -> None:
        async for each in self.inner.browse(delivery.subject):
            await self.inner.discard(each)
            if each.id == delivery.id:
                return


class ReadsToBrowse(Mutant):
    """Takes a message away by showing it."""

    killed_by = ("K1", "K2")

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        async for each in self.inner.browse(pattern):
            await self.inner.discard(each)
            yield each


class KeepsWhatIsUnread(Mutant):
    """Keeps a message only as long as no group has it."""

    killed_by = ("K3",)

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        read = any(each.subscription.group for each in self.subscribers)
        async for each in self.inner.browse(pattern):
            if not read:
                yield each


class WaitsForTheNext(Mutant):
    """Waits at the end of what is kept for one more message."""

    killed_by = ("K1", "K4")

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        async for each in self.inner.browse(pattern):
            yield each
        await asyncio.Event().wait()


class KeepsForItself(Mutant):
    """Keeps in its own memory, where no other client sees it."""

    killed_by = ("K2", "K5")

    def begin(self) -> None:
        self._mine: set[str | None] = set()

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        self._mine.add(outgoing.id)
        return [outgoing]

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        async for each in self.inner.browse(pattern):
            if each.id in self._mine:
                yield each
