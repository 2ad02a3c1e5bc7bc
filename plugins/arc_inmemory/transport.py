"""MemoryTransport: one client of an in-memory broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from arc_bus.errors import BusStopped, ConfigError, NoResponders, PayloadTooLarge, RequestTimeout
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Subscription
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
from arc_inmemory.broker import Broker, named
from arc_inmemory.feed import MemoryFeed
from arc_inmemory.inbox import Inbox
from arc_inmemory.options import MemoryOptions, parse

_DEFAULTS = MemoryOptions()


class MemoryTransport(Transport):
    """A transport whose broker lives in this process.

    `memory://` has a broker of its own, which ends with it; `memory://name` shares one with every
    other transport of that name in the process (see `arc_inmemory.broker.named`). What `publish`
    accepted is in every matching queue when it returns, and is delivered in a later turn of the
    loop. All time is the event loop's, so that a test may use a virtual one.

    A subscription's `options` are ignored: they are another transport's, which this one stands for.
    """

    capabilities = Capabilities(
        delivery=Guarantee.AT_LEAST_ONCE,
        publish=PublishProof.PERSISTED,
        while_disconnected=WhileDisconnected.NEVER_DISCONNECTED,
        durable=frozenset({Survives.CLIENT_RESTART}),
        start=frozenset({StartAt.NEW, StartAt.EARLIEST}),
        groups=True,
        ordering=Ordering.PER_SUBJECT,
        ordering_survives=frozenset(OrderSurvives),
        ack=Ack.CONFIRMED,
        nack=Nack.DELAYED,
        reject=True,
        ack_deadline=_DEFAULTS.ack_deadline,
        extend=True,
        attempts=Attempts.EXACT,
        request_reply=True,
        no_responders=True,
        wildcards=frozenset(Wildcard),
        headers=HeaderRules(),
        max_payload=_DEFAULTS.max_payload,
        publish_dedup=_DEFAULTS.dedup_window,
        prefetch_bounded=True,
        browse=True,
    )

    def __init__(self, endpoint: Endpoint) -> None:
        """Make a client for the endpoint's URL. Raises ConfigError for one that cannot work."""
        name, options = parse(endpoint)
        self.broker = named(name, options) if name else Broker(options)
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities,
            ack_deadline=options.ack_deadline,
            max_payload=options.max_payload,
            publish_dedup=options.dedup_window,
            # A private broker ends with its only client.
            durable=type(self).capabilities.durable if name else frozenset[Survives](),
        )
        self._endpoint = endpoint
        self._running = False
        self._stopped = False
        self._feeds: set[MemoryFeed] = set()
        self._inboxes: set[Inbox] = set()
        self._body_limit = options.max_payload

    async def start(self) -> None:
        """Join the broker. Raises ConfigError if it belongs to another event loop."""
        if self._stopped:
            raise self._not_running()
        if self.broker.loop is not asyncio.get_running_loop():
            raise ConfigError(
                f"{self._endpoint.url!r} belongs to another event loop; use another name there"
            )
        if not self._running:
            self._running = True
            self._endpoint.report(Notice(kind=NoticeKind.CONNECTED, transport=self._endpoint.url))

    async def stop(self) -> None:
        """Leave the broker; unsettled deliveries go back, waiting requests end in BusStopped."""
        self.leave()

    def leave(self) -> None:
        """Do what `stop` does, at once."""
        self._running = False
        self._stopped = True
        for feed in tuple(self._feeds):
            feed.abandon()
        for inbox in self._inboxes:
            inbox.fail()

    async def publish(self, outgoing: Outgoing) -> None:
        """Put it into every matching queue. Raises PublishRejected when one is full."""
        if not self._running or len(outgoing.body) > self._body_limit:
            self._check(outgoing)
        self.broker.publish(outgoing)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Begin to receive, from the next publish on or from the earliest message kept."""
        if not self._running:
            raise self._not_running()
        feed = self.broker.subscribe(subscription, deliver, self._feeds.discard)
        self._feeds.add(feed)
        return feed

    async def flush(self) -> None:
        """Do nothing: what was published is with the broker."""
        if not self._running:
            raise self._not_running()

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        """Send to the groups that have a reader now; return the first reply."""
        asked, replies = await self._ask(outgoing, timeout, 1)
        if not asked:
            raise NoResponders(f"nobody listens on {outgoing.destination!r}")
        if not replies:
            raise RequestTimeout(f"no reply from {outgoing.destination!r} within {timeout} s")
        return replies[0]

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        """Send to the groups that have a reader now; at once an empty list if there is none."""
        return (await self._ask(outgoing, timeout, most))[1]

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Hand the reply to the requester, if it still waits."""
        self._check(outgoing)
        if delivery.reply_to is None:
            raise ConfigError(f"message {delivery.id!r} on {delivery.subject!r} asks for no reply")
        self.broker.answer(delivery.reply_to, outgoing)

    async def retain(self, pattern: str) -> None:
        """Keep what is published to `pattern` from now on, until it is discarded."""
        self.broker.retain(pattern)

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Iterate over what was retained and not discarded."""
        for stored in self.broker.kept(pattern):
            yield Delivery(
                stored.subject,
                stored.body,
                stored.headers,
                stored.id or None,
                stored.key,
                token=stored.number,
            )

    async def discard(self, delivery: Delivery) -> None:
        """Remove one browsed message."""
        if isinstance(delivery.token, int):
            self.broker.discard(delivery.token)

    async def health(self) -> str | None:
        """Return None while it runs."""
        return None if self._running else "the in-memory transport is not running"

    async def _ask(
        self, outgoing: Outgoing, timeout: float, most: int
    ) -> tuple[bool, list[Delivery]]:
        self._check(outgoing)
        inbox = Inbox(self.broker.loop, timeout, most)
        address = self.broker.open_inbox(inbox)
        self._inboxes.add(inbox)
        try:
            if not self.broker.ask(outgoing, address):
                return False, []
            return True, await inbox.collect()
        finally:
            inbox.close()
            self._inboxes.discard(inbox)
            self.broker.close_inbox(address)

    def _check(self, outgoing: Outgoing) -> None:
        if not self._running:
            raise self._not_running()
        if len(outgoing.body) > self._body_limit:
            raise PayloadTooLarge(
                f"message {outgoing.id!r} to {outgoing.destination!r} has {len(outgoing.body)}"
                f" bytes; {self._endpoint.url!r} carries {self._body_limit}"
            )

    def _not_running(self) -> BusStopped:
        state = "was stopped" if self._stopped else "is not started"
        return BusStopped(f"the in-memory transport {self._endpoint.url!r} {state}")
