"""Mutants that give messages to the wrong members, or more of them than were asked for."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.policy import Subscription
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, copied, moved
from arc_bus.testing.wrapper import WrappedFeed
from arc_bus.transport import Deliver, Delivery, Feed


class BroadcastsInGroups(Mutant):
    """Gives every message to every member of a group."""

    killed_by = ("G2", "G3", "W8", "Q6", "O2b")

    def asked(self, subscription: Subscription) -> Subscription:
        return moved(subscription, group=None)


class KnowsOneGroup(Mutant):
    """Takes all groups of a subject for the same one."""

    killed_by = ("G1", "G7")

    def asked(self, subscription: Subscription) -> Subscription:
        return moved(subscription, group=subscription.group and "group")


class SharesAmongAll(Mutant):
    """Lets subscribers without a group compete as if they were one."""

    killed_by = ("G5",)

    def asked(self, subscription: Subscription) -> Subscription:
        return moved(subscription, group=subscription.group or "nobody")


class JoinsWhateverGroupThereIs(Mutant):
    """Puts a subscriber without a group into the group that its client has on that subject."""

    killed_by = ("G6",)

    def asked(self, subscription: Subscription) -> Subscription:
        groups = [
            each.subscription.group
            for each in self.subscribers
            if each.subscription.pattern == subscription.pattern and each.subscription.group
        ]
        return moved(subscription, group=subscription.group or next(iter(groups), None))


class FavoursTheFirst(Mutant):
    """Gives all work to the first member of a group, and what exceeds its credit to nobody."""

    killed_by = ("G3", "G3b", "F3")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        group = subscriber.subscription.group
        first = all(
            each is subscriber or each.subscription.group != group
            for peer in self.peers
            for each in peer.subscribers
        )
        return inner if group is None or first else _Idle(inner)


class _Idle(WrappedFeed):
    def grant(self, count: int) -> None:
        pass


class KeepsWhatALeaverHeld(Mutant):
    """Leaves what a closed feed had unsettled to its ack deadline."""

    killed_by = ("A2", "G4", "X7")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _NeverClosing(inner)

    async def stop(self) -> None:
        """Leave the connection open: the broker does not see that anybody went."""


class _NeverClosing(WrappedFeed):
    async def close(self) -> None:
        await self.inner.stop()


class DeliversToTheGone(Mutant):
    """Goes on giving a member that left its share."""

    killed_by = ("G4b", "A3")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Ghost(inner)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        assert isinstance(subscriber.feed, _Ghost)
        if not subscriber.feed.gone:
            subscriber.deliver(batch)

    async def stop(self) -> None:
        """Leave the connection open."""


class _Ghost(WrappedFeed):
    gone = False

    async def stop(self) -> None:
        self.gone = True

    async def close(self) -> None:
        self.gone = True


class SettlesForAllGroups(Mutant):
    """Takes the ack of one group for the ack of all."""

    killed_by = ("G7",)

    def begin(self) -> None:
        self.given: list[tuple[Subscriber, Delivery]] = []

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        self.given += [(subscriber, delivery) for delivery in batch]
        subscriber.deliver(batch)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _ForAll(inner, self)


class _ForAll(WrappedFeed):
    def __init__(self, inner: Feed, mutant: SettlesForAllGroups) -> None:
        super().__init__(inner)
        self._mutant = mutant

    async def ack(self, delivery: Delivery) -> None:
        for subscriber, other in self._mutant.given:
            if other.id == delivery.id and other.verdict is None and subscriber.inner is not None:
                await subscriber.inner.ack(copied(other))
        delivery.verdict = None


class FetchesWithoutBound(Mutant):
    """Delivers whatever there is, as if credit were without end."""

    killed_by = ("F1", "F1b", "O3", "G3")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Boundless(inner)


class _Boundless(WrappedFeed):
    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        inner.grant(100_000)


class HoardsBeyondItsCredit(Mutant):
    """Fetches into a buffer of its own without bound, and delivers from there by credit."""

    killed_by = ("F3", "F5")

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        hoard = _Hoard(deliver)
        hoard.inner = await self.inner.subscribe(subscription, hoard.take)
        hoard.inner.grant(100_000)
        return hoard


class _Hoard(WrappedFeed):
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._credit = 0
        self._hoard: list[Delivery] = []

    def take(self, batch: list[Delivery]) -> None:
        self._hoard += batch
        given, self._hoard = self._hoard[: self._credit], self._hoard[self._credit :]
        self._credit -= len(given)
        if given:
            self._deliver(given)

    def grant(self, count: int) -> None:
        self._credit += count
        asyncio.get_running_loop().call_soon(self.take, list[Delivery]())


class GrantsOnce(Mutant):
    """Forgets the credit that is granted after the first time."""

    killed_by = ("F1", "F2", "F4", "O1b")

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Once(inner)


class _Once(WrappedFeed):
    granted = False

    def grant(self, count: int) -> None:
        if not self.granted:
            self.granted = True
            self.inner.grant(count)


class DropsWithoutCredit(Mutant):
    """Throws away what arrives when the reader has no credit left."""

    killed_by = ("P12", "F1b", "F2", "F4")

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        dropping = _Dropping(deliver)
        dropping.inner = await self.inner.subscribe(subscription, dropping.take)
        dropping.inner.grant(100_000)
        return dropping


class _Dropping(WrappedFeed):
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._credit = 0

    def take(self, batch: list[Delivery]) -> None:
        given = batch[: self._credit]
        self._credit -= len(given)
        if given:
            self._deliver(given)

    def grant(self, count: int) -> None:
        self._credit += count


class GuessesWhatIsPending(Mutant):
    """Says that nothing waits, whatever does."""

    killed_by = ("F5",)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        return _Guessing(inner)


class _Guessing(WrappedFeed):
    async def pending(self) -> int | None:
        return 0
