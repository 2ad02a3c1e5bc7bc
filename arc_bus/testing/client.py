"""Client: one recorded transport."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from arc_bus.errors import ConfigError, InvalidName, PayloadError, PublishRejected
from arc_bus.policy import Subscription
from arc_bus.testing.consumer import MANY, Consumer
from arc_bus.testing.history import Fate
from arc_bus.transport import Delivery, Outgoing, StartAt, Transport

if TYPE_CHECKING:
    from arc_bus.testing.lab import Lab

_NEVER_SENT = (ConfigError, InvalidName, PayloadError, PublishRejected)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What a check says of a message; the rest is made up."""

    body: bytes = b"body"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    id: str | None = None
    key: str | None = None


class Client:
    """A started transport; what goes through it is in the lab's history."""

    def __init__(self, lab: Lab, transport: Transport, name: str) -> None:
        self.lab = lab
        self.transport = transport
        self.name = name
        self.consumers: list[Consumer] = []

    async def publish(self, subject: str, draft: Draft | None = None) -> Outgoing:
        """Publish one message, recorded; return what was sent."""
        draft = draft or Draft()
        outgoing = Outgoing(
            subject, draft.body, draft.headers, draft.id or self.lab.new_id(), draft.key
        )
        await self.send(outgoing)
        return outgoing

    async def send(self, outgoing: Outgoing) -> None:
        """Publish `outgoing`, recorded."""
        history = self.lab.history
        publish = history.publish(outgoing.id, outgoing.destination, outgoing.key, self.name)
        try:
            await self.transport.publish(outgoing)
        except _NEVER_SENT:
            history.published(publish, Fate.REFUSED)
            raise
        except BaseException:
            history.published(publish, Fate.UNKNOWN)
            raise
        history.published(publish, Fate.CONFIRMED)

    async def request(self, subject: str, body: bytes, timeout: float) -> Delivery:
        """Request, recorded; nobody is owed it, because a request may find nobody."""
        outgoing = Outgoing(subject, body, {}, self.lab.new_id())
        with self._asking(outgoing):
            return await self.transport.request(outgoing, timeout)

    async def gather(self, subject: str, timeout: float, most: int) -> list[Delivery]:
        """Gather, recorded."""
        outgoing = Outgoing(subject, b"?", {}, self.lab.new_id())
        with self._asking(outgoing):
            return await self.transport.gather(outgoing, timeout, most)

    @contextmanager
    def _asking(self, outgoing: Outgoing) -> Generator[None, None, None]:
        history = self.lab.history
        publish = history.publish(outgoing.id, outgoing.destination, outgoing.key, self.name)
        try:
            yield
        finally:
            history.published(publish, Fate.UNKNOWN)

    async def publish_in_turn(self, subject: str, count: int, key: str | None = None) -> list[str]:
        """Publish `count` messages, each when the one before is confirmed; return their ids."""
        return [(await self.publish(subject, Draft(key=key))).id for _ in range(count)]

    async def publish_at_once(self, subject: str, count: int) -> list[str]:
        """Publish `count` messages, up to 256 of them at the same time; return their ids."""
        ids: list[str] = []
        for start in range(0, count, 256):
            burst = (self.publish(subject) for _ in range(min(256, count - start)))
            ids += [outgoing.id for outgoing in await asyncio.gather(*burst)]
        return ids

    async def consume(
        self,
        pattern: str,
        group: str | None = None,
        *,
        start: StartAt = StartAt.NEW,
        credit: int = MANY,
        eager: bool = False,
        by_key: bool = False,
        prefetch: int | None = None,
    ) -> Consumer:
        """Subscribe, recorded; an eager consumer acks everything, others settle nothing.

        With `by_key` the subscription asks for equal keys one after another, over all members;
        `prefetch` is how many messages the transport may hold for it.
        """
        lab = self.lab
        name = f"reader {len(lab.history.readers) + 1}"
        reader = lab.history.subscribed(name, pattern, group, start)
        consumer = Consumer(lab, reader, eager=eager)
        reader.by_key = by_key
        subscription = Subscription(
            pattern=pattern,
            group=group,
            start=start,
            order_by="key" if by_key else None,
            prefetch=prefetch,
            options=lab.harness.options(),
        )
        feed = await self.transport.subscribe(subscription, consumer.deliver)
        reader.active = lab.history.place()
        await consumer.join(feed, credit)
        self.consumers.append(consumer)
        return consumer

    async def stop(self) -> None:
        """Close the consumers, then the transport."""
        for consumer in self.consumers:
            await consumer.close()
        await self.transport.stop()
