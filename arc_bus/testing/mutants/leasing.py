"""Mutants that take back too early or too late what they delivered."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import NotSettled
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, copied
from arc_bus.testing.wrapper import WrappedFeed
from arc_bus.transport import Delivery, Feed


class KeepsLeasesForEver(Mutant):
    """Extends what is not settled as long as the feed is open."""

    killed_by = ("A8", "A8b", "A9b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Extending(inner)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert isinstance(subscriber.feed, _Extending)
        subscriber.feed.keep(batch)
        subscriber.deliver(batch)


class _Extending(WrappedFeed):
    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._keeping: list[asyncio.Future[None]] = []

    def keep(self, batch: list[Delivery]) -> None:
        self._keeping += [asyncio.ensure_future(self._keep(delivery)) for delivery in batch]

    async def _keep(self, delivery: Delivery) -> None:
        while delivery.verdict is None:
            await asyncio.sleep(1.0)
            try:
                await self.inner.extend(delivery)
            except NotSettled:
                return

    async def close(self) -> None:
        for keeping in self._keeping:
            keeping.cancel()
        await super().close()


class IsImpatient(Mutant):
    """Ends a lease after half the declared deadline."""

    killed_by = ("A8", "A9", "A9c")

    def begin(self) -> None:
        self._ending: list[asyncio.Future[None]] = []

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        self._ending.append(asyncio.ensure_future(self._end(subscriber, batch)))
        subscriber.deliver(batch)

    async def _end(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert subscriber.inner is not None
        await asyncio.sleep((self.capabilities.ack_deadline or 0.0) / 2)
        for delivery in batch:
            if delivery.verdict is None:
                await subscriber.inner.nack(copied(delivery))


class IgnoresExtensions(Mutant):
    """Does nothing when a lease is to be extended."""

    killed_by = ("A9", "A9b", "A9c")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Unextending(inner)


class _Unextending(WrappedFeed):
    async def extend(self, delivery: Delivery) -> None:
        pass
