"""PulsarTransport: Apache Pulsar through the official client, without blocking the loop."""

# Over 300 lines: every method of a transport is here, each a few lines and its contract.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec

from arc_bus.errors import BusStopped, PayloadTooLarge
from arc_bus.notice import Notice, NoticeKind
from arc_bus.permissions import Needs
from arc_bus.policy import Subscription
from arc_bus.routing import has_wildcard
from arc_bus.transport import (
    Ack,
    Attempts,
    Capabilities,
    Deliver,
    Delivery,
    Endpoint,
    Feed,
    Guarantee,
    HeaderRules,
    Nack,
    Ordering,
    OrderSurvives,
    Outgoing,
    PublishProof,
    StartAt,
    Survives,
    Transport,
    WhileDisconnected,
    Wildcard,
)
from arc_pulsar import topics, vendor
from arc_pulsar.admin import Admin
from arc_pulsar.client import PulsarClient
from arc_pulsar.feed import Membership, PulsarFeed
from arc_pulsar.intake import Intake
from arc_pulsar.options import parse
from arc_pulsar.permissions import commands
from arc_pulsar.producer import TopicProducer
from arc_pulsar.retained import Retained
from arc_pulsar.subscribing import is_held, open_consumer, temporary_name

_HEADERS: Final = HeaderRules()

MAX_PAYLOAD: Final = 5 * 1024 * 1024 - _HEADERS.max_bytes - 1024
"""The broker's `maxMessageSize` (5 MiB), which counts headers, key and their framing as well."""

STOP_DEADLINE: Final = 10.0
"""Seconds that `stop()` takes at the most, in all."""

LAST_WORDS: Final = 1.0
"""Seconds of that, or half of what is left, for the library to tell of what has ended before."""

HEALTH_DEADLINE: Final = 5.0
"""Seconds for the round trip of `health()`."""

WATCH: Final = 1.0
"""Seconds between two looks at whether the broker holds our producers and consumers."""

PING: Final = 5.0
"""Seconds between two questions to the broker while there is neither."""

DISCOVERY: Final = 4.0
"""Seconds from a look for new topics, one each `discovery_period`, to their first message."""

THREADS: Final = 16
"""Threads that fetch batches; each is busy for a few milliseconds at a time."""


class PulsarTransport(Transport):
    """Topics of Apache Pulsar 4: at least once, persisted, in order per key.

    `publish` returns when the broker has stored the message; while it is away, publishes wait in
    this process, bounded, up to `send_timeout`. A time-out leaves open whether the message is
    stored (PublishUnconfirmed): publishing it again may duplicate it, as Pulsar deduplicates by
    producer and sequence number only, never by message id.

    A group is a Pulsar subscription of that name, SHARED, or KEY_SHARED with `order_by`
    (`PulsarSubscription` says more). Without a group the subscriber has one of its own, which ends
    with it; after a crash it stays at the broker, named `arc-<service>-<hex>`, and keeps messages
    until the namespace's subscription expiration ends it (`NamespacePolicy` checks that there is
    one). A subscription that ended with its connection would lose what comes during a reconnect.
    A producers' batch goes to one member of a group as a whole.
    """

    capabilities = Capabilities(
        delivery=Guarantee.AT_LEAST_ONCE,
        publish=PublishProof.PERSISTED,
        while_disconnected=WhileDisconnected.WAIT,
        durable=frozenset({Survives.CLIENT_RESTART, Survives.BROKER_RESTART}),
        start=frozenset({StartAt.NEW, StartAt.EARLIEST}),
        groups=True,
        ordering=Ordering.PER_KEY,
        ordering_survives=frozenset({OrderSurvives.GROUP}),
        ack=Ack.BUFFERED,
        nack=Nack.DELAYED,
        reject=True,
        attempts=Attempts.HINT,
        wildcards=frozenset({Wildcard.TOKEN}),
        discovery_lag=1.0 + DISCOVERY,
        headers=_HEADERS,
        max_payload=MAX_PAYLOAD,
        prefetch_bounded=True,
        browse=True,
    )

    def __init__(self, endpoint: Endpoint) -> None:
        """Read the URL and options; connects to nothing. Raises ConfigError."""
        self._url, self._options = parse(endpoint)
        self._endpoint = endpoint
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities, discovery_lag=self._options.discovery_period + DISCOVERY
        )
        self._admin = (
            Admin(self._options.admin_url, self._options) if self._options.admin_url else None
        )
        self._client: PulsarClient | None = None
        self._retained: Retained | None = None
        self._producers: dict[str, TopicProducer] = {}
        self._feeds: dict[PulsarFeed, vendor.Consumer] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._lost = False
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and check what `admin_url` lets us see. Raises ConnectFailed, ConfigError."""
        if self._stopping is not None:
            raise self._not_running()
        if self._client is not None:
            return
        client = PulsarClient(self._url, self._options)
        try:
            await client.connect()
            if self._admin is not None:
                await self._admin.preflight(self._endpoint.prefixes)
        except BaseException:
            await client.close(STOP_DEADLINE)
            raise
        self._client = client
        self._retained = Retained(client)
        self._threads = ThreadPoolExecutor(THREADS, "arc-pulsar")
        self._report(NoticeKind.CONNECTED)
        self._watch()

    async def stop(self) -> None:
        """Close feeds, then producers when they are empty, then the client; within 10 s.

        What is pending then is PublishUnconfirmed. Idempotent.
        """
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        for task in (self._asking, self._confirming):
            if task is not None:
                task.cancel()
        client = self._client
        if client is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_DEADLINE
        await asyncio.gather(*(feed.close() for feed in tuple(self._feeds)))
        producers = self._producers.values()
        await asyncio.gather(*(each.close(end - loop.time() - 1.0) for each in producers))
        # What has ended, such as a receive whose consumer was closed, is told by a thread that ends
        # with the client: what it has not told by then the library holds for ever.
        await client.bridge.released(min(LAST_WORDS, (end - loop.time()) / 2))
        confirmed = await client.close(max(0.5, end - loop.time()))
        if self._threads is not None:
            self._threads.shutdown()  # at once: every feed has waited for its own
        detail = "" if confirmed else "the broker did not confirm the end of the connection"
        self._report(NoticeKind.STOPPED, detail)

    async def publish(self, outgoing: Outgoing) -> None:
        """Return when the broker has stored it, with `confirm` as the options say.

        Raises PayloadTooLarge and PublishRejected before anything is sent, ConnectionLost when it
        was not sent, PublishUnconfirmed when it was sent and not answered. Cancelled while it waits
        for room it is not sent; later it may be stored.
        """
        client = self._running()
        client.check_process()
        size = _size(outgoing)
        producer = self._producers.get(outgoing.destination)
        if producer is None:
            producer = self._producer(client, outgoing.destination)
        await producer.submit(outgoing, size)

    def _producer(self, client: PulsarClient, topic: str) -> TopicProducer:
        topics.check_persistent(topic)
        retained = self._keeper()
        prepare = retained.ensure if retained.keeps(topic) else None
        producer = self._producers[topic] = TopicProducer(client, topic, prepare)
        return producer

    async def flush(self) -> None:
        """Return when every publish begun before has ended, well or not."""
        self._running()
        await asyncio.gather(*(each.flush() for each in tuple(self._producers.values())))

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Begin to receive; `subscription.options` is a PulsarSubscription, a mapping or None.

        Raises ConfigError also where the group is read exclusively or with another type.
        """
        client = self._running()
        topics.check_persistent(subscription.pattern)
        name = subscription.group or temporary_name(self._endpoint.service)
        consumer = await open_consumer(client, subscription, name)
        temporary = subscription.group is None
        membership = Membership(name, temporary, partial(self._backlog, subscription, name))
        feed = PulsarFeed(
            client, consumer, membership, subscription, deliver, self._endpoint.report
        )
        assert self._threads is not None
        feed.attach(Intake(consumer, client.bridge, self._threads, feed.arrived))
        self._feeds[feed] = consumer
        feed.when_closed(self._feeds.pop)
        return feed

    async def _backlog(self, subscription: Subscription, name: str) -> int | None:
        if self._admin is None or has_wildcard(subscription.pattern):
            return None
        return await self._admin.backlog(subscription.pattern, name)

    async def retain(self, pattern: str) -> None:
        """Make sure that the subscription `arc-dlq` keeps what is published from now on.

        It grows until `discard`, or until the namespace's backlog quota or message lifetime.
        """
        self._running()
        await self._keeper().retain(pattern)

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Iterate over what `arc-dlq` keeps; one browser of a topic at a time, others wait 10 s."""
        self._running()
        async for delivery in self._keeper().browse(pattern):
            yield delivery

    async def discard(self, delivery: Delivery) -> None:
        """Acknowledge a browsed message: at once, or while a browse of it runs, with its end."""
        self._running()
        await self._keeper().discard(delivery)

    async def health(self) -> str | None:
        """Make one round trip to the broker, within 5 s."""
        try:
            async with asyncio.timeout(HEALTH_DEADLINE):
                problem = await self._running().ping()
        except TimeoutError:
            problem = f"no answer within {HEALTH_DEADLINE} s"
        except BusStopped as error:
            return str(error)
        return f"Pulsar at {self._url}: {problem}" if problem else None

    def permissions(self, needs: Needs) -> str:
        """Return `pulsar-admin` commands for a role of the service's name."""
        return commands(needs)

    def _watch(self) -> None:
        """Look whether the broker holds what we opened: the library does not tell by itself."""
        self._watching = asyncio.get_running_loop().call_later(WATCH, self._watch)
        handles: tuple[TopicProducer | PulsarFeed, ...]
        handles = (*self._producers.values(), *self._feeds)
        if any(handle.connected is False for handle in handles):
            self._judge(True)
        elif not handles:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.get_running_loop().create_task(self._ask())
        elif self._lost and (self._confirming is None or self._confirming.done()):
            self._confirming = asyncio.get_running_loop().create_task(self._confirm())

    async def _confirm(self) -> None:
        """Make a round trip for each consumer; what is acknowledged before it is back is lost."""
        client = self._client
        assert client is not None
        try:
            async with asyncio.timeout(HEALTH_DEADLINE):
                asked = [is_held(client, consumer) for consumer in self._feeds.values()]
                held = await asyncio.gather(*asked)
        except TimeoutError:
            return  # `_watch` asks again
        if all(held):
            self._judge(False)

    async def _ask(self) -> None:
        """Make a round trip, for want of a producer or consumer whose connection would tell."""
        self._judge(await self.health() is not None)
        await asyncio.sleep(PING)

    def _judge(self, lost: bool) -> None:
        if lost is not self._lost:
            self._lost = lost
            self._report(NoticeKind.LOST if lost else NoticeKind.RESTORED)

    def _keeper(self) -> Retained:
        assert self._retained is not None
        return self._retained

    def _running(self) -> PulsarClient:
        if self._client is None or self._stopping is not None:
            raise self._not_running()
        return self._client

    def _not_running(self) -> BusStopped:
        state = "stopped" if self._stopping is not None else "not started"
        return BusStopped(f"the connection to Pulsar at {self._url} is {state}")

    def _report(self, kind: NoticeKind, detail: str = "") -> None:
        self._endpoint.report(Notice(kind=kind, transport=self._url, detail=detail))


def _size(outgoing: Outgoing) -> int:
    """Return the bytes of body and headers. Raises PayloadTooLarge."""
    size = len(outgoing.body)
    # Headers have room of their own, so that a dead letter fits where its original did; they are
    # counted only where the body leaves none of its room to them.
    if size > MAX_PAYLOAD - _HEADERS.max_bytes:
        headers = sum(len(name) + len(value.encode()) for name, value in outgoing.headers.items())
        if size > MAX_PAYLOAD or headers > _HEADERS.max_bytes:
            raise PayloadTooLarge(
                f"publishing to {outgoing.destination!r}: a body of {size} bytes and headers of"
                f" {headers}; the route carries {MAX_PAYLOAD} and {_HEADERS.max_bytes}: store the"
                " body elsewhere and publish its address"
            )
        size += headers
    return size
