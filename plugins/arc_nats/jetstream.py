"""JetStreamTransport: streams, at least once: confirmed publishes, durable groups, verdicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, NamedTuple

import msgspec

from arc_bus.errors import ArcBusError, BusStopped, ConfigError, PayloadTooLarge, Unsupported
from arc_bus.notice import NoticeKind
from arc_bus.permissions import Needs
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
    Outgoing,
    PublishProof,
    StartAt,
    Survives,
    Transport,
    WhileDisconnected,
    Wildcard,
)
from arc_nats import consumers, headers, permissions, streams, subjects
from arc_nats.address import parse
from arc_nats.api import Api, ApiFailure, Done
from arc_nats.catalog import Catalog
from arc_nats.client import Connection
from arc_nats.inbox import Inbox
from arc_nats.incoming import Incoming
from arc_nats.options import Durability, JetStreamOptions
from arc_nats.pull import PullFeed
from arc_nats.session import Session
from arc_nats.window import Window
from arc_nats.wire import ServerInfo

_DEFAULTS: Final = JetStreamOptions()
_MESSAGE_GONE: Final = (10037, 10043)  # no message found; sequence not found


class Stored(NamedTuple):
    """Where a browsed message is."""

    stream: str
    sequence: int


class JetStreamTransport(Transport):
    """JetStream by one connection that is kept up for ever.

    `publish` returns when the stream has stored the message. While disconnected it waits; a message
    without an answer is sent again under the same id, which the stream deduplicates, and in the
    end PublishUnconfirmed. What a stored message survives is the option `durability`: compared
    with the stream at start; whether the servers sync before they confirm, no client can see, and
    it is not promised here.
    """

    capabilities = Capabilities(
        delivery=Guarantee.AT_LEAST_ONCE,
        publish=PublishProof.PERSISTED,
        while_disconnected=WhileDisconnected.WAIT,
        durable=frozenset(Survives),
        start=frozenset(StartAt),
        groups=True,
        ordering=Ordering.PER_SUBJECT,
        ack=Ack.CONFIRMED,
        nack=Nack.DELAYED,
        reject=True,
        ack_deadline=_DEFAULTS.ack_wait,
        extend=True,
        attempts=Attempts.EXACT,
        wildcards=frozenset(Wildcard),
        headers=HeaderRules(unicode=True, max_bytes=headers.MOST_BYTES),
        max_payload=1024 * 1024 - headers.MOST_BYTES,
        publish_dedup=_DEFAULTS.duplicate_window,
        prefetch_bounded=True,
        browse=True,
    )

    def __init__(self, endpoint: Endpoint) -> None:
        """Read URL and options. Raises ConfigError for what cannot work."""
        self._endpoint = endpoint
        self._address, self._options = parse(endpoint, JetStreamOptions)
        options = self._options
        if options.provision is None and not endpoint.provision:
            options = self._options = msgspec.structs.replace(options, provision=False)
        if self._address.stream:
            streams.check_name(self._address.stream, "stream")
        if options.confirm_timeout * options.publish_tries >= options.duplicate_window:
            raise ConfigError(
                f"{self._address.shown}: a publish is repeated for {options.publish_tries} x"
                f" {options.confirm_timeout} s, which must be below the duplicate window of"
                f" {options.duplicate_window} s, or it could be stored twice"
            )
        self.capabilities = msgspec.structs.replace(
            self.capabilities,
            ack=Ack.CONFIRMED if options.confirm_acks else Ack.BUFFERED,
            ack_deadline=options.ack_wait,
            publish_dedup=options.duplicate_window,
        )
        self._headers = headers.Writer()
        self._lines = subjects.Outgoing()
        self._body_limit = self.capabilities.max_payload
        self._session: Session | None = None
        self._window: Window | None = None
        self._catalog: Catalog | None = None
        self._stopped = False

    # Life

    async def start(self) -> None:
        """Connect; find, check, perhaps make the streams. Raises ConnectFailed, ConfigError."""
        options = self._options
        connection = Connection(
            self._address, options, self._endpoint.service, self._endpoint.report
        )
        connection.on_server.append(self._measure)
        await connection.start()
        inbox = Inbox(connection)
        api = Api(connection, inbox, options.domain)
        session = Session(connection, inbox, api, Incoming(), options)
        self._session = session
        self._catalog = Catalog(api, self._address, options)
        self._window = Window(connection, options, self._catalog.keeps)
        try:
            await inbox.start()
            await self._window.start()
            await self._catalog.prepare(self._endpoint)
            self.capabilities = self._catalog.declared(self.capabilities)
            self._remark(connection)
        except BaseException:
            await self.stop()
            raise

    def _remark(self, connection: Connection) -> None:
        """Say what was asked and could not be verified, once now and at every look at health."""
        if self._options.durability is Durability.FSYNC:
            remark = (
                "durability=fsync is unverified: a server tells no client its sync_interval; see"
                " that every server of the cluster says `jetstream { sync_interval: always }`"
            )
            self.remarks = (remark,)
            connection.notify(NoticeKind.ERROR, remark)

    def _measure(self, server: ServerInfo) -> None:
        """Declare what the server takes; the header bytes count there, so they are set aside."""
        self.capabilities = headers.within(server.max_payload, self.capabilities)
        self._body_limit = self.capabilities.max_payload
        self._headers.most = self.capabilities.headers.max_bytes

    async def stop(self) -> None:
        """Wait a moment for what is not confirmed yet, and close. Idempotent."""
        self._stopped = True
        if self._window is not None and self._session is not None:
            await self._window.flush(self._session.connection.patience)
            self._window.close()
        if self._session is not None:
            await self._session.connection.stop()

    @property
    def _live(self) -> Session:
        if self._session is None or self._stopped:
            raise BusStopped(f"the transport to {self._address.shown} is not running")
        return self._session

    @property
    def _the_catalog(self) -> Catalog:
        assert self._catalog is not None, "made with the session"
        return self._catalog

    # Publish

    # A plain function: a coroutine round the window's own would be resumed with it.
    # pyright names an async function's coroutine more narrowly than there is a public way to.
    def publish(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, outgoing: Outgoing
    ) -> Coroutine[Any, Any, None]:
        """Return when it is stored. Raises PublishRejected, PublishUnconfirmed, ConnectionLost."""
        window = self._window
        if window is None or self._stopped:
            raise BusStopped(f"the transport to {self._address.shown} is not running")
        destination = outgoing.destination
        line = self._lines.known.get(destination) or self._lines.line(destination)
        block = self._headers.block(outgoing)
        body = outgoing.body
        size = len(body)
        if size > self._body_limit:
            raise PayloadTooLarge(
                f"{size} bytes to {destination!r}; this route carries {self._body_limit}:"
                " send a reference, or raise max_payload on the server"
            )
        return window.publish(destination, line, block, body, bool(outgoing.id))

    async def flush(self) -> None:
        """Return when all that was published before has its answer."""
        self._live.connection.outbox.flush()
        if self._window is not None:
            await self._window.flush()

    # Subscribe

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Read by the group's durable consumer, or one of this reader's own. Raises ConfigError."""
        session = self._live
        subjects.check(subscription.pattern)
        stream = await self._the_catalog.stream_of(subscription.pattern)
        consumer = await consumers.ensure(session, stream, subscription)
        feed = PullFeed(session, consumer, deliver)
        await feed.start()
        return feed

    # Keep, look at and remove what is stored

    async def retain(self, pattern: str) -> None:
        """Make sure that a stream keeps `pattern`. Raises ConfigError naming the remedy."""
        await self._the_catalog.retain(pattern)

    async def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Yield what the stream keeps on `pattern`, oldest first, to its present end."""
        session = self._live
        name = await self._the_catalog.stream_of(pattern)
        info = await session.api.stream(name)
        last = info.state.last_seq if info is not None else 0
        sequence = info.state.first_seq if info is not None else 1
        while sequence <= last:
            stored = await session.api.message(name, sequence, pattern)
            if stored is None or stored.seq > last:
                return
            frame = (stored.subject.encode(), None, stored.hdrs or None, stored.data)
            for delivery in session.incoming.read([frame])[0]:
                delivery.token = Stored(name, stored.seq)
                yield delivery
            sequence = stored.seq + 1

    async def discard(self, delivery: Delivery) -> None:
        """Remove a browsed message for good; a no-op if it is gone already."""
        place = delivery.token
        if not isinstance(place, Stored):
            raise Unsupported("only a browsed message can be discarded; settle a delivery instead")
        try:
            await self._live.api.ask(
                f"STREAM.MSG.DELETE.{place.stream}", {"seq": place.sequence}, Done
            )
        except ApiFailure as failure:
            if failure.error.err_code not in _MESSAGE_GONE:
                raise ConfigError(f"{self._address.shown}: {failure}") from failure

    async def health(self) -> str | None:
        """Make one round trip to JetStream itself."""
        try:
            await self._live.api.ask("INFO", None, Done)
        except ArcBusError as error:
            return str(error)
        return None

    def permissions(self, needs: Needs) -> str:
        """Return a user of nats-server's configuration (`arc_nats.permissions`)."""
        return permissions.jetstream(needs, self._options, self._address)
