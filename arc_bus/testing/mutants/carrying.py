"""Mutants that match names badly, or change what they carry."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import string
from collections.abc import Mapping

from arc_bus.errors import PayloadTooLarge
from arc_bus.policy import Subscription
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, altered, moved
from arc_bus.transport import Deliver, Delivery, Feed, Outgoing


class ReadsAStarAsATail(Mutant):
    """Lets `*` at the end match several tokens."""

    killed_by = ("W3",)

    def asked(self, subscription: Subscription) -> Subscription:
        pattern = subscription.pattern
        if pattern.endswith(".*"):
            return moved(subscription, pattern=f"{pattern[:-1]}>")
        return subscription


class ReadsATailAsAStar(Mutant):
    """Lets `>` match one token only."""

    killed_by = ("W2", "W2b")

    def asked(self, subscription: Subscription) -> Subscription:
        pattern = subscription.pattern
        if pattern.endswith(".>"):
            return moved(subscription, pattern=f"{pattern[:-1]}*")
        return subscription


class NamesThePattern(Mutant):
    """Says that a message's subject is the pattern it came by."""

    killed_by = ("W1",)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.subject = subscriber.subscription.pattern
        subscriber.deliver(batch)


class DeliversOneCopy(Mutant):
    """Gives a message to one of the overlapping subscriptions of a client."""

    killed_by = ("W4", "G5")

    def begin(self) -> None:
        self._given: set[str | None] = set()

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        new = [delivery for delivery in batch if delivery.id not in self._given]
        self._given |= {delivery.id for delivery in new}
        if new:
            subscriber.deliver(new)


class DiscoversNothing(Mutant):
    """Matches a pattern with the subjects that exist when it is subscribed, and no others."""

    killed_by = ("W5", "W2")

    def begin(self) -> None:
        self._existing: set[str] = set()
        self._known: dict[str, set[str]] = {}

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        for peer in self.peers:
            if isinstance(peer, DiscoversNothing):
                peer._existing.add(outgoing.destination)
        return [outgoing]

    def asked(self, subscription: Subscription) -> Subscription:
        self._known[subscription.pattern] = {*self._existing}
        return subscription

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        pattern = subscriber.subscription.pattern
        known = self._known[pattern] | {pattern}
        subscriber.deliver([delivery for delivery in batch if delivery.subject in known])


class CutsLongSubjects(Mutant):
    """Keeps 60 characters of a subject's name."""

    killed_by = ("C9",)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.subject = delivery.subject[:60]
        subscriber.deliver(batch)


class DecodesBodies(Mutant):
    """Carries bodies as text, with what is not UTF-8 replaced."""

    killed_by = ("C1",)

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        return [altered(outgoing, body=outgoing.body.decode(errors="replace").encode())]


class CutsGreatBodies(Mutant):
    """Sends the first half of the greatest size it declares, and says nothing."""

    killed_by = ("C2", "Q9")

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        return [altered(outgoing, body=outgoing.body[: self.capabilities.max_payload // 2])]

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        return await super().request(self.sent(outgoing)[0], timeout)


class CountsHeadersAsBody(Mutant):
    """Has no room for headers beside the largest body, so that its dead letter would not fit."""

    killed_by = ("C2b",)

    async def publish(self, outgoing: Outgoing) -> None:
        headers = sum(len(name) + len(value) for name, value in outgoing.headers.items())
        if len(outgoing.body) + headers > self.capabilities.max_payload:
            raise PayloadTooLarge(f"{len(outgoing.body)} bytes and {headers} of headers")
        await super().publish(outgoing)


class _ChangesHeaders(Mutant):
    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        return [altered(outgoing, headers=self.headers(outgoing.headers))]

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        raise NotImplementedError


class StripsHeaderValues(_ChangesHeaders):
    """Takes the blanks off both ends of a header's value."""

    killed_by = ("C3",)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: value.strip() for name, value in headers.items()}


class DropsEmptyHeaders(_ChangesHeaders):
    """Leaves out a header without a value."""

    killed_by = ("C3", "C6b")

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if value}


class DropsUnicodeHeaders(_ChangesHeaders):
    """Loses all headers if one of them is not ASCII."""

    killed_by = ("C3b",)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return dict(headers) if all(value.isascii() for value in headers.values()) else {}


class TitlesHeaderNames(_ChangesHeaders):
    """Writes header names as HTTP/1 libraries like to: Like-This."""

    killed_by = ("C3", "C3c", "A11", "C8", "Q1")

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {string.capwords(name, "-"): value for name, value in headers.items()}

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        await super().reply(delivery, self.sent(outgoing)[0])


class ShowsTheIdAsAHeader(_ChangesHeaders):
    """Delivers what it needs itself among the publisher's headers."""

    killed_by = ("C7",)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "internal-id": "7"}


class ChangesIds(Mutant):
    """Delivers message ids in lower case."""

    killed_by = ("C6",)

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.id = (delivery.id or "").lower()
        subscriber.deliver(batch)


class BorrowsThePublishersMapping(Mutant):
    """Delivers the very mapping that the publisher gave."""

    killed_by = ("C8",)

    def begin(self) -> None:
        self._lent: dict[str | None, Mapping[str, str]] = {}

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        self._lent[outgoing.id] = outgoing.headers
        return [outgoing]

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.headers = self._lent.get(delivery.id, delivery.headers)
        subscriber.deliver(batch)


class SharesOnlyPlainSubjects(Mutant):
    """Gives every member of a group all messages if it subscribed by a pattern."""

    killed_by = ("W8",)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        if "*" in subscription.pattern:
            subscription = moved(subscription, group=None)
        return await super().subscribe(subscription, deliver)
