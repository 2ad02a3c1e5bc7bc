"""Retained: topics whose messages are kept to be looked at, and removed one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import msgspec

from arc_bus.errors import ConfigError, NotSettled
from arc_bus.routing import DEAD_SUFFIX, has_wildcard
from arc_bus.transport import Delivery
from arc_pulsar import topics, vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.failure import Busy, settling
from arc_pulsar.received import deliveries_of

SUBSCRIPTION: Final = "arc-dlq"
"""The durable subscription that keeps what is published to a retained topic."""

QUIET: Final = 1.0
"""Seconds without a message after which a browse is at its end, where it cannot know it."""

TURN: Final = 10.0
"""Seconds to wait for another browser of the same topic to end: they read one at a time."""


class _Place(msgspec.Struct, frozen=True):
    """The topic or pattern that was browsed, and where in which topic or partition it is."""

    browsed: str
    topic: str
    id: vendor.MessageId


class Retained:
    """Keeps, lists and removes by one subscription on each topic, which acknowledges what is gone.

    It is read by one consumer at a time, so that a browse sees everything, oldest first; partitions
    follow one another. Nothing is settled by looking.
    """

    def __init__(self, client: PulsarClient) -> None:
        """Know of no topic yet."""
        self._client = client
        self._patterns: set[str] = set()
        self._kept: set[str] = set()
        self._reading: dict[str, vendor.Consumer] = {}

    def keeps(self, topic: str) -> bool:
        """Return whether `topic` is to be kept: a dead-letter topic, or what `retain` was given."""
        return topic.endswith(DEAD_SUFFIX) or any(
            topics.matches(pattern, topic) for pattern in self._patterns
        )

    async def retain(self, pattern: str) -> None:
        """Keep what is published to `pattern` from now on, in topics that come later, too.

        Raises ConfigError, ConnectionLost.
        """
        self._patterns.add(pattern)
        await self.ensure(pattern)

    async def ensure(self, pattern: str) -> None:
        """Make sure that the topic, or the topics there are, have the subscription."""
        if pattern in self._kept:
            return
        with suppress(Busy):  # somebody is reading it: so it exists
            await self._client.end(await self._open(pattern, queue=1))
        if not has_wildcard(pattern):
            self._kept.add(pattern)

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Iterate to the present end. Raises ConfigError, ConnectionLost.

        The end is the last message that was there at the beginning; where that one is gone, or the
        pattern has a wildcard, it is `QUIET` seconds without a message.
        """
        await self.ensure(pattern)
        places = [pattern] if has_wildcard(pattern) else await self._client.partitions(pattern)
        for place in places:
            async with self._reader(place, queue=1000) as consumer:
                last = None if has_wildcard(place) else await self._last(consumer)
                if last is not None and last.entry_id() < 0:
                    continue
                async for message in self._messages(consumer, last):
                    topic = message.topic_name()
                    token = _Place(place, topic, message.message_id())
                    (delivery,) = deliveries_of([message], topics.subject_of(topic), token)
                    yield delivery

    async def _messages(
        self, consumer: vendor.Consumer, last: vendor.MessageId | None
    ) -> AsyncIterator[vendor.Message]:
        seen: set[bytes] = set()
        while True:
            try:
                async with asyncio.timeout(QUIET):
                    answer = await self._client.bridge.ask(consumer.receive_async)
            except TimeoutError:
                return  # that receive stays open: it ends with the consumer, which is closed next
            result, message = cast("tuple[vendor.Result, vendor.Message]", answer)
            if result.value != 0:
                return
            here = message.message_id()
            if here.serialize() in seen:  # delivered once more after a lost connection
                continue
            seen.add(here.serialize())
            yield message
            if last is not None and here >= last:
                return

    async def _last(self, consumer: vendor.Consumer) -> vendor.MessageId | None:
        answer = await self._client.bridge.ask(consumer.get_last_message_id_async)
        result, last = cast("tuple[vendor.Result, vendor.MessageId]", answer)
        return last if result.value == 0 else None

    async def discard(self, delivery: Delivery) -> None:
        """Acknowledge for good; at the broker when this returns, or when the browse under way ends.

        Raises ConfigError for a delivery that `browse` did not give, NotSettled.
        """
        if not isinstance(delivery.token, _Place):
            raise ConfigError(f"message {delivery.id!r} does not come from browse()")
        browsed, topic, place = delivery.token.browsed, delivery.token.topic, delivery.token.id
        consumer = self._reading.get(browsed) or self._reading.get(topic)
        if consumer is not None:
            _acknowledge(consumer, place, delivery)
            return
        async with self._reader(topic, queue=1) as consumer:
            _acknowledge(consumer, place, delivery)

    @asynccontextmanager
    async def _reader(self, topic: str, queue: int) -> AsyncGenerator[vendor.Consumer]:
        """Be the one reader of `topic`; its acknowledgements are with the broker at the end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TURN
        while True:
            try:
                consumer = await self._open(topic, queue)
                break
            except Busy as error:
                if loop.time() > deadline:
                    raise Busy(f"{topic!r} is being browsed by another process: {error}") from error
                await asyncio.sleep(0.1)
        self._reading[topic] = consumer
        try:
            yield consumer
        finally:
            del self._reading[topic]
            code = await self._client.end(consumer)
        if code != "Ok":
            raise NotSettled(f"{topic!r}: discarded messages may come again ({code})")

    async def _open(self, pattern: str, queue: int) -> vendor.Consumer:
        settings = vendor.load().ConsumerConfiguration()
        vendor.configure(
            settings,
            consumer_type=vendor.enum("ConsumerType", "Exclusive"),
            receiver_queue_size=queue,
            subscription_initial_position=vendor.enum("InitialPosition", "Earliest"),
            batch_index_ack_enabled=True,
        )
        wild = has_wildcard(pattern)
        target = vendor.load().TopicRegex(topics.expression_of(pattern)) if wild else pattern
        return await self._client.open_consumer(target, SUBSCRIPTION, settings)


def _acknowledge(consumer: vendor.Consumer, place: vendor.MessageId, delivery: Delivery) -> None:
    try:
        consumer.acknowledge(place)
    except Exception as error:
        raise settling(f"message {delivery.id!r}", error) from error
