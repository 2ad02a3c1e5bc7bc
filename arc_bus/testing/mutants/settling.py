"""Mutants that settle badly."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import AlreadySettled, NotSettled
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, copied
from arc_bus.testing.wrapper import WrappedFeed
from arc_bus.transport import Delivery, Feed


class NeverAcks(Mutant):
    """Forgets to send the ack."""

    killed_by = ("A1", "D4", "X4", "A12", "D3b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _NeverAcking(inner)


class _NeverAcking(WrappedFeed):
    async def ack(self, delivery: Delivery) -> None:
        pass


class AcksOnReceipt(Mutant):
    """Acks what it delivers at once, before any handler has run."""

    killed_by = ("A2", "A3", "A8", "A8b", "G4", "G7", "X7", "E4b", "X5", "X6")

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        self._acking = asyncio.ensure_future(self._ack(subscriber, [copied(d) for d in batch]))
        subscriber.deliver(batch)

    async def _ack(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert subscriber.inner is not None
        for delivery in batch:
            await subscriber.inner.ack(delivery)


class DropsWhatIsGivenBack(Mutant):
    """Takes a nack for an ack."""

    killed_by = ("A4", "A4b", "A10", "A11", "O3")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _DroppingNack(inner)


class _DroppingNack(WrappedFeed):
    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        await self.inner.ack(delivery)


class NacksInAHotLoop(Mutant):
    """Redelivers at once whatever delay was asked for."""

    killed_by = ("A4b", "A4c")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Hot(inner)


class _Hot(WrappedFeed):
    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        await self.inner.nack(delivery)


class NacksForAMinute(Mutant):
    """Redelivers after the client library's own delay, not the one asked for."""

    killed_by = ("A4", "A4b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Slow(inner)


class _Slow(WrappedFeed):
    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        await self.inner.nack(delivery, 60.0)


class BlocksWhileWaiting(Mutant):
    """Delivers nothing else while a message waits out its delay."""

    killed_by = ("A4c",)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Blocking(inner)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert isinstance(subscriber.feed, _Blocking)
        loop = asyncio.get_running_loop()
        if loop.time() < subscriber.feed.until:
            loop.call_at(subscriber.feed.until + 0.01, subscriber.deliver, batch)
        else:
            subscriber.deliver(batch)


class _Blocking(WrappedFeed):
    until = 0.0

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        self.until = asyncio.get_running_loop().time() + delay
        await self.inner.nack(delivery, delay)


class LosesEveryFiftiethNack(Mutant):
    """Counts a nack in fifty as an ack."""

    killed_by = ("A4d",)

    def begin(self) -> None:
        self.nacks = 0

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Careless(inner, self)


class _Careless(WrappedFeed):
    def __init__(self, inner: Feed, mutant: LosesEveryFiftiethNack) -> None:
        super().__init__(inner)
        self._mutant = mutant

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        self._mutant.nacks += 1
        if self._mutant.nacks % 50 == 0:
            await self.inner.ack(delivery)
        else:
            await self.inner.nack(delivery, delay)


class RequeuesWhatIsRejected(Mutant):
    """Takes a reject for a nack."""

    killed_by = ("A5", "E1", "E4")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Requeuing(inner)


class _Requeuing(WrappedFeed):
    async def reject(self, delivery: Delivery) -> None:
        await self.inner.nack(delivery)


class AcksCumulatively(Mutant):
    """Acks, with a message, all that were delivered before it."""

    killed_by = ("A6",)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Cumulative(inner)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert isinstance(subscriber.feed, _Cumulative)
        subscriber.feed.delivered += batch
        subscriber.deliver(batch)


class _Cumulative(WrappedFeed):
    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self.delivered: list[Delivery] = []

    async def ack(self, delivery: Delivery) -> None:
        while self.delivered:
            earlier = self.delivered.pop(0)
            await self.inner.ack(earlier)
            if earlier is delivery:
                return


class ForgivesEverything(Mutant):
    """Takes a second verdict, and one after close(), without a word."""

    killed_by = ("A7", "A7b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Forgiving(inner)


class _Forgiving(WrappedFeed):
    async def ack(self, delivery: Delivery) -> None:
        try:
            await self.inner.ack(delivery)
        except NotSettled:
            return

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        try:
            await self.inner.nack(delivery, delay)
        except AlreadySettled:
            return


class CountsNoAttempts(Mutant):
    """Says of every delivery that it is the first."""

    killed_by = ("A10",)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        # The token knows the attempt as well; a copy with its own would not settle.
        subscriber.deliver([_first(delivery) for delivery in batch])

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Restoring(inner)


def _first(delivery: Delivery) -> Delivery:
    return copied(delivery, attempt=1, token=delivery)


class _Restoring(WrappedFeed):
    async def ack(self, delivery: Delivery) -> None:
        assert isinstance(delivery.token, Delivery)
        await self.inner.ack(delivery.token)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        assert isinstance(delivery.token, Delivery)
        await self.inner.nack(delivery.token, delay)


class SharesItsDeliveries(Mutant):
    """Redelivers the object that the reader had, with all that was done to it."""

    killed_by = ("A11",)

    def begin(self) -> None:
        self._had: dict[str | None, Delivery] = {}

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            had = self._had.setdefault(delivery.id, delivery)
            delivery.body, delivery.headers = had.body, had.headers
        subscriber.deliver(batch)


class AcksLater(Mutant):
    """Says that a message is acked when the ack is only in a buffer, which close() throws away."""

    killed_by = ("A12", "A1")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Buffering(inner)


class _Buffering(WrappedFeed):
    async def ack(self, delivery: Delivery) -> None:
        self._acking = asyncio.ensure_future(self._later(delivery))

    async def _later(self, delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        try:
            await self.inner.ack(delivery)
        except NotSettled:
            return


class EndsVerdictsWithIntake(Mutant):
    """Closes when it is told to stop: what is running then can no longer be settled."""

    killed_by = ("X4",)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Hasty(inner)


class _Hasty(WrappedFeed):
    async def stop(self) -> None:
        await self.inner.close()
