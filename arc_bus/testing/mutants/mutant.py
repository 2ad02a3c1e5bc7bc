"""Mutant: a transport with one fault, which the kit must find."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from arc_bus.policy import Subscription
from arc_bus.testing.wrapper import Wrapped
from arc_bus.transport import Capabilities, Deliver, Delivery, Feed, Outgoing, Transport


class Subscriber(msgspec.Struct, eq=False):
    """One subscription that a mutant passed on.

    `inner` is the feed of the transport inside, `feed` what the mutant put around it.
    """

    subscription: Subscription
    deliver: Deliver
    inner: Feed | None = None
    feed: Feed | None = None


class Mutant(Wrapped):
    """Works as the transport inside, but for what a subclass overrides.

    `killed_by` names the checks that must fail on it; together the mutants name every check.
    `peers` are all transports of one lab, this one among them, for faults of the broker.
    """

    killed_by: ClassVar[tuple[str, ...]]

    def __init__(self, inner: Transport, peers: list[Mutant]) -> None:
        super().__init__(inner)
        self.peers = peers
        self.subscribers: list[Subscriber] = []
        self.begin()

    @staticmethod
    def of_class(real: Capabilities) -> Capabilities:
        """Return what the mutant's class declares, where the sound one declares `real`."""
        return real

    def begin(self) -> None:
        """Set up what the subclass needs."""

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish what `sent` makes of it."""
        for each in self.sent(outgoing):
            await self.inner.publish(each)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Subscribe as `asked` says, deliver by `arrive`, settle by `fed`."""
        subscriber = Subscriber(subscription, deliver)
        self.subscribers.append(subscriber)

        def arrive(batch: list[Delivery]) -> None:
            self.arrive(subscriber, batch)

        inner = await self.inner.subscribe(self.asked(subscription), arrive)
        subscriber.inner = inner
        subscriber.feed = feed = self.fed(subscriber, inner)
        return feed

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        """Return what is published instead of `outgoing`."""
        return [outgoing]

    def asked(self, subscription: Subscription) -> Subscription:
        """Return what is subscribed instead of `subscription`."""
        return subscription

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        """Deliver `batch`, or something else."""
        subscriber.deliver(batch)

    def fed(self, subscriber: Subscriber, inner: Feed) -> Feed:
        """Return what the subscriber gets instead of `inner`."""
        return inner


def altered(outgoing: Outgoing, **changes: object) -> Outgoing:
    """Return a copy of `outgoing` with `changes`."""
    return msgspec.structs.replace(outgoing, **changes)


def moved(subscription: Subscription, **changes: object) -> Subscription:
    """Return a copy of `subscription` with `changes`."""
    return msgspec.structs.replace(subscription, **changes)


def copied(delivery: Delivery, **changes: object) -> Delivery:
    """Return a copy of `delivery` with `changes`; it settles the same message."""
    return msgspec.structs.replace(delivery, **changes)
