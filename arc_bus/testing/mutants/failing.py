"""Mutants that do not survive the death of a broker, or of a client, as they should."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import ConnectionLost, NotSettled
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.testing.mutants.mutant import copied, moved
from arc_bus.testing.mutants.remote import Remote, RemoteFeed
from arc_bus.transport import Deliver, Delivery, Feed, Outgoing


class FailingRemote(Remote):
    """The base of these mutants; `killed_by` names the fault checks that must fail."""

    killed_by: tuple[str, ...] = ()


class ConfirmsFromItsBuffer(FailingRemote):
    """Confirms a publish when it is in the client's buffer."""

    killed_by = ("P4", "P6", "P7")

    async def publish(self, outgoing: Outgoing) -> None:
        self._sending = asyncio.ensure_future(self._send(outgoing))

    async def _send(self, outgoing: Outgoing) -> None:
        await asyncio.sleep(0.05)
        if self in self.broker.clients:
            await super().publish(outgoing)


class RaisesInsteadOfWaiting(FailingRemote):
    """Raises while it is disconnected, though it declares to wait."""

    killed_by = ("P7",)

    async def publish(self, outgoing: Outgoing) -> None:
        if not self.broker.alive:
            raise ConnectionLost("not connected")
        await super().publish(outgoing)


class AcksWhatItReceives(FailingRemote):
    """Acks on receipt, so that a killed reader takes its messages with it."""

    killed_by = ("A3b", "R5")

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        feed = _Acking(self, subscription, deliver)
        feed.inner = await self.inner.subscribe(subscription, feed.arrive)
        self.feeds.append(feed)
        return feed


class _Acking(RemoteFeed):
    def arrive(self, batch: list[Delivery]) -> None:
        self._acking = asyncio.ensure_future(self._ack_all([copied(each) for each in batch]))
        super().arrive(batch)

    async def _ack_all(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            await self.inner.ack(delivery)


class BuffersItsAcks(FailingRemote):
    """Says that an ack is confirmed while it still waits for company."""

    killed_by = ("A12b",)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        feed = await super().subscribe(subscription, deliver)
        assert isinstance(feed, RemoteFeed)
        return _Lazy(feed)


class _Lazy(RemoteFeed):
    def __init__(self, feed: RemoteFeed) -> None:
        self.remote = feed
        self.inner = feed

    def grant(self, count: int) -> None:
        self.remote.grant(count)

    async def ack(self, delivery: Delivery) -> None:
        self._acking = asyncio.ensure_future(self._later(delivery))

    async def _later(self, delivery: Delivery) -> None:
        await asyncio.sleep(0.5)
        try:
            await self.remote.ack(delivery)
        except NotSettled:
            return

    async def stop(self) -> None:
        await self.remote.stop()

    async def close(self) -> None:
        await self.remote.close()


class ForgetsGroupsWithTheConnection(FailingRemote):
    """Comes back with a new position for each group: what was stored is never read."""

    killed_by = ("R1",)

    async def reconnected(self) -> None:
        for feed in self.feeds:
            feed.subscription = moved(feed.subscription, group=f"{feed.subscription.group}-again")
        await super().reconnected()


class StaysFrozen(FailingRemote):
    """Does not notice that a frozen broker answers again."""

    killed_by = ("R2",)
    _frozen = False

    def thawed(self) -> None:
        self._frozen = True

    async def publish(self, outgoing: Outgoing) -> None:
        if self._frozen:
            await asyncio.Event().wait()
        await super().publish(outgoing)


class ResumesGroupsOnly(FailingRemote):
    """Subscribes again for groups, and forgets the others."""

    killed_by = ("R3",)

    async def reconnected(self) -> None:
        self.feeds = [feed for feed in self.feeds if feed.subscription.group is not None]
        await super().reconnected()


class ComesBackTwice(FailingRemote):
    """Gives up after two reconnections."""

    killed_by = ("R3b",)
    _left = 2

    async def reconnected(self) -> None:
        if self._left:
            self._left -= 1
            await super().reconnected()


class ConnectsToNobody(FailingRemote):
    """Returns from start() and connects in the background, whether or not anybody is there."""

    killed_by = ("R6",)

    async def start(self) -> None:
        if self.broker.alive:
            await super().start()


class ReportsEveryAttempt(FailingRemote):
    """Reports the loss of the connection once for each attempt to get it back."""

    killed_by = ("R8",)

    async def cut(self) -> None:
        await super().cut()
        self.tell(NoticeKind.LOST)


class SaysNothing(FailingRemote):
    """Reports nothing at all."""

    killed_by = ("R8",)

    def tell(self, kind: NoticeKind) -> None:
        pass


class StopsWithItsBroker(FailingRemote):
    """Waits in stop() for a broker that is dead."""

    killed_by = ("R9",)

    async def stop(self) -> None:
        await self.broker.answers.wait()
        await super().stop()


class AcksIntoTheVoid(FailingRemote):
    """Says that an ack without a connection is confirmed."""

    killed_by = ("R10",)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        feed = _Void(self, subscription, deliver)
        feed.inner = await self.inner.subscribe(subscription, feed.arrive)
        self.feeds.append(feed)
        return feed


class _Void(RemoteFeed):
    async def ack(self, delivery: Delivery) -> None:
        if self.client.broker.alive:
            await super().ack(delivery)


class AsksNobodyForEver(FailingRemote):
    """Waits with a request for the connection, and forgets the request's own time."""

    killed_by = ("Q12",)

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        await self.broker.answers.wait()
        return await self.inner.request(outgoing, timeout)


FAILING = (
    ConfirmsFromItsBuffer,
    RaisesInsteadOfWaiting,
    AcksWhatItReceives,
    BuffersItsAcks,
    ForgetsGroupsWithTheConnection,
    StaysFrozen,
    ResumesGroupsOnly,
    ComesBackTwice,
    ConnectsToNobody,
    ReportsEveryAttempt,
    SaysNothing,
    StopsWithItsBroker,
    AcksIntoTheVoid,
    AsksNobodyForEver,
)
"""Every mutant of the fault checks."""
