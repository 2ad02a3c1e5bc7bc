"""Mutants that deliver from the wrong place, to the wrong reader, too late or too often."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.policy import Subscription
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, altered, copied, moved
from arc_bus.testing.wrapper import WrappedFeed
from arc_bus.transport import Deliver, Delivery, Feed, Outgoing, StartAt


class SubscribesLazily(Mutant):
    """Returns from subscribe() before the subscription is active."""

    killed_by = ("D1", "D1b")

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        feed = _LateFeed()
        feed.subscribing = asyncio.ensure_future(self._later(feed, subscription, deliver))
        return feed

    async def _later(self, feed: _LateFeed, subscription: Subscription, deliver: Deliver) -> None:
        await asyncio.sleep(0.01)
        feed.inner = await self.inner.subscribe(subscription, deliver)
        feed.inner.grant(feed.credit)


class _LateFeed(WrappedFeed):
    subscribing: asyncio.Future[None]

    def __init__(self) -> None:
        self.credit = 0

    def grant(self, count: int) -> None:
        self.credit += count

    async def close(self) -> None:
        await self.subscribing
        await super().close()


class ReadsFromTheBeginning(Mutant):
    """Starts every new group at the earliest message."""

    killed_by = ("D2", "P10")

    def asked(self, subscription: Subscription) -> Subscription:
        return moved(subscription, start=StartAt.EARLIEST)


class ReadsFromNow(Mutant):
    """Starts every new group at what comes next."""

    killed_by = ("D3",)

    def asked(self, subscription: Subscription) -> Subscription:
        return moved(subscription, start=StartAt.NEW)


class ForgetsItsGroups(Mutant):
    """Gives a group a new position each time somebody subscribes: no group is durable."""

    killed_by = ("D3b", "D4", "D4b", "A2", "A3", "A6", "G7", "X4")

    def begin(self) -> None:
        self._count = 0

    def asked(self, subscription: Subscription) -> Subscription:
        self._count += 1
        if subscription.group is None:
            return subscription
        number = self.peers.index(self)
        return moved(subscription, group=f"{subscription.group}-{number}-{self._count}")


class TearsDownTogether(Mutant):
    """Stops all subscriptions of a subject when one is stopped."""

    killed_by = ("D5", "G4b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Together(inner, self, subscriber)


class _Together(WrappedFeed):
    def __init__(self, inner: Feed, mutant: Mutant, subscriber: Subscriber) -> None:
        super().__init__(inner)
        self._siblings = mutant.subscribers
        self._pattern = subscriber.subscription.pattern

    async def stop(self) -> None:
        for sibling in self._siblings:
            if sibling.subscription.pattern == self._pattern and sibling.inner is not None:
                await sibling.inner.stop()

    async def close(self) -> None:
        await self.stop()
        await super().close()


class DeliversAfterStop(Mutant):
    """Ends a subscription a little after stop() and close() have returned."""

    killed_by = ("D5", "D5b", "X5")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Lingering(inner)


class _Lingering(WrappedFeed):
    async def stop(self) -> None:
        self._ending = asyncio.ensure_future(self._end())

    async def close(self) -> None:
        await self.stop()

    async def _end(self) -> None:
        await asyncio.sleep(0.05)
        await self.inner.close()


class RepeatsEveryTenth(Mutant):
    """Delivers every tenth message twice."""

    killed_by = ("D6", "G2", "G3", "E1")

    def begin(self) -> None:
        self._count = 0

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in tuple(batch):
            self._count += 1
            if self._count % 10 == 0:
                batch.append(copied(delivery))
        subscriber.deliver(batch)


class ServesOneSubscription(Mutant):
    """Keeps the last subscription only: one more takes its place."""

    killed_by = ("D8", "P3", "G1")

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        if subscriber is self.subscribers[-1]:
            subscriber.deliver(batch)


class SwapsNeighbours(Mutant):
    """Delivers each two that arrive together the other way round."""

    killed_by = ("O1", "O1b", "O2", "O5")

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        subscriber.deliver(batch[::-1])


class IgnoresKeys(Mutant):
    """Shares the messages of one key among the members of a group."""

    killed_by = ("O2b", "C6")

    def begin(self) -> None:
        self._keys: dict[str | None, str | None] = {}

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        for peer in self.peers:
            if isinstance(peer, IgnoresKeys):
                peer._keys[outgoing.id] = outgoing.key
        return [altered(outgoing, key=None)]

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            # A slip that C6 must see: the key comes back in lower case.
            key = self._keys.get(delivery.id)
            delivery.key = key and key.replace("/", "_")
        subscriber.deliver(batch)


class PutsWhatComesBackLast(Mutant):
    """Puts what was given back, or held by a reader that went, behind all that waits."""

    killed_by = ("O3", "O4")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Last(inner)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert isinstance(subscriber.feed, _Last)
        subscriber.feed.held += batch
        subscriber.deliver(batch)


class _Last(WrappedFeed):
    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self.held: list[Delivery] = []

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        await self.inner.nack(delivery, delay or 0.01)

    async def close(self) -> None:
        for delivery in self.held:
            if delivery.verdict is None:
                await self.inner.nack(copied(delivery), 0.01)
        await self.inner.close()
