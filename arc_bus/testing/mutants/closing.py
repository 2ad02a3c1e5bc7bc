"""Mutants that stop badly, or not at all."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import BusStopped, ConnectionLost
from arc_bus.policy import Subscription
from arc_bus.testing.mutants.mutant import Mutant, Subscriber
from arc_bus.testing.wrapper import WrappedFeed
from arc_bus.transport import Deliver, Delivery, Feed, Outgoing


class StopsOnlyOnce(Mutant):
    """Raises when it is stopped for the second time."""

    killed_by = ("X1",)

    def begin(self) -> None:
        self._stopped = False

    async def stop(self) -> None:
        if self._stopped:
            raise BusStopped("stopped already")
        self._stopped = True
        await super().stop()


class IgnoresWhatComesTooLate(Mutant):
    """Says nothing when it is used before start() or after stop(), and does nothing."""

    killed_by = ("X2", "X2b")

    async def publish(self, outgoing: Outgoing) -> None:
        try:
            await super().publish(outgoing)
        except BusStopped:
            return


class StopsWhenAllIsSettled(Mutant):
    """Waits in stop() until every delivery has its verdict."""

    killed_by = ("X3",)

    def begin(self) -> None:
        self._given: list[Delivery] = []

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        self._given += batch
        subscriber.deliver(batch)

    async def stop(self) -> None:
        while any(delivery.verdict is None for delivery in self._given):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await super().stop()


class WorksOnce(Mutant):
    """Shares something with all of its kind that the first stop() ends for good."""

    killed_by = ("X8", "X10", "D4b")

    async def start(self) -> None:
        if any(isinstance(peer, WorksOnce) and peer.ended for peer in self.peers):
            raise ConnectionLost("the shared connection is closed")
        await super().start()

    ended = False

    async def stop(self) -> None:
        self.ended = True
        await super().stop()

    async def publish(self, outgoing: Outgoing) -> None:
        if any(isinstance(peer, WorksOnce) and peer.ended for peer in self.peers):
            raise ConnectionLost("the shared connection is closed")
        await super().publish(outgoing)


class LeavesATaskBehind(Mutant):
    """Keeps a heartbeat for each connection, also when that is closed."""

    killed_by = ("X9",)

    async def start(self) -> None:
        await super().start()
        self._heart = asyncio.ensure_future(asyncio.Event().wait())


class IsNeverWell(Mutant):
    """Says in health() that something is wrong."""

    killed_by = ("X11", "X10")

    async def health(self) -> str | None:
        return "no answer"


class FlushesAfterStop(Mutant):
    """Lets flush() and subscribe() return after stop() as if they had worked."""

    killed_by = ("X2",)

    async def flush(self) -> None:
        try:
            await super().flush()
        except BusStopped:
            return

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        try:
            return await super().subscribe(subscription, deliver)
        except BusStopped:
            return WrappedFeed(self.subscribers[-1].inner or _nothing())


def _nothing() -> Feed:
    raise BusStopped("never started")


class EndsPublishingWithIntake(Mutant):
    """Takes nothing to publish any more once a feed was told to stop."""

    killed_by = ("X4b",)

    def begin(self) -> None:
        self.ending = False

    async def publish(self, outgoing: Outgoing) -> None:
        if self.ending:
            raise BusStopped("intake has stopped, and publishing with it")
        await super().publish(outgoing)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Ending(inner, self)


class _Ending(WrappedFeed):
    def __init__(self, inner: Feed, mutant: EndsPublishingWithIntake) -> None:
        super().__init__(inner)
        self._mutant = mutant

    async def stop(self) -> None:
        self._mutant.ending = True
        await super().stop()
