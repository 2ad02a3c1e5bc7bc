"""CoreTransport: core NATS, at most once: subjects, wildcards, queue groups, request and reply."""

from __future__ import annotations

import msgspec

from arc_bus.errors import (
    BusStopped,
    ConfigError,
    ConnectionLost,
    InvalidName,
    NoResponders,
    PayloadTooLarge,
    PublishRejected,
    RequestTimeout,
    Unsupported,
)
from arc_bus.notice import NoticeKind
from arc_bus.permissions import Needs
from arc_bus.policy import Subscription
from arc_bus.replying import NO_REPLY
from arc_bus.transport import (
    Capabilities,
    Deliver,
    Delivery,
    Endpoint,
    Feed,
    Guarantee,
    HeaderRules,
    Ordering,
    OrderSurvives,
    Outgoing,
    PublishProof,
    Transport,
    WhileDisconnected,
    Wildcard,
)
from arc_nats import headers, permissions, subjects
from arc_nats.address import parse
from arc_nats.asking import Questions
from arc_nats.client import Connection
from arc_nats.feed import CoreFeed
from arc_nats.incoming import Incoming
from arc_nats.options import NatsOptions
from arc_nats.outbox import TURN, sizes
from arc_nats.wire import ServerInfo


class CoreTransport(Transport):
    """Core NATS by one connection that is kept up for ever.

    A message is lost without notice where nobody subscribes, and with one (`LOST`, `DROPPED`)
    where this client can see it. While disconnected `publish` keeps up to `buffer_bytes` for the
    next connection, then raises ConnectionLost; with the option `confirm` it waits for the server
    instead, `flush_timeout` at most.
    """

    capabilities = Capabilities(
        delivery=Guarantee.AT_MOST_ONCE,
        publish=PublishProof.BUFFERED,
        while_disconnected=WhileDisconnected.BUFFER,
        groups=True,
        ordering=Ordering.PER_SUBJECT,
        ordering_survives=frozenset({OrderSurvives.RECONNECT}),
        request_reply=True,
        no_responders=True,
        wildcards=frozenset(Wildcard),
        headers=HeaderRules(unicode=True, max_bytes=headers.MOST_BYTES),
        max_payload=1024 * 1024 - headers.MOST_BYTES,
    )

    def __init__(self, endpoint: Endpoint) -> None:
        """Read URL and options. Raises ConfigError for what cannot work."""
        self._endpoint = endpoint
        self._address, self.options = parse(endpoint, NatsOptions)
        if self._address.stream:
            raise ConfigError(
                f"{self._address.shown}: core NATS has no streams; write"
                " nats+jetstream:// in front, or leave the path out"
            )
        self._confirm = self.options.confirm
        if self._confirm:
            self.capabilities = msgspec.structs.replace(
                self.capabilities,
                publish=PublishProof.SERVER_RECEIVED,
                while_disconnected=WhileDisconnected.WAIT,
            )
        self._headers = headers.Writer()
        self._lines = subjects.Outgoing()
        self._incoming = Incoming()
        self._connection: Connection | None = None
        self._questions: Questions | None = None
        self._body_limit = self.capabilities.max_payload
        self._stopped = False

    async def start(self) -> None:
        """Connect. Raises ConnectFailed."""
        connection = Connection(
            self._address, self.options, self._endpoint.service, self._endpoint.report
        )
        connection.on_server.append(self._measure)
        connection.on_denied.append(self._denied)
        await connection.start()
        self._connection = connection
        self._questions = Questions(connection)
        try:
            await self._questions.start()
        except BaseException:
            await self.stop()
            raise

    def _measure(self, server: ServerInfo) -> None:
        """Declare what the server takes; the header bytes count there, so they are set aside."""
        self.capabilities = headers.within(server.max_payload, self.capabilities)
        self._body_limit = self.capabilities.max_payload
        self._headers.most = self.capabilities.headers.max_bytes

    async def stop(self) -> None:
        """Flush and close. Idempotent."""
        self._stopped = True
        if self._connection is not None:
            await self._connection.stop()
        if self._questions is not None:
            self._questions.close()

    @property
    def _live(self) -> Connection:
        if self._connection is None or self._stopped:
            raise self._not_running()
        return self._connection

    def _not_running(self) -> BusStopped:
        return BusStopped(f"the transport to {self._address.shown} is not running")

    def _frame(self, outgoing: Outgoing, line: bytes) -> bytes:
        """Return the message in the protocol's words, behind `line`. Raises PayloadTooLarge."""
        block = self._headers.block(outgoing)
        body = outgoing.body
        heading, size = len(block), len(body)
        if size > self._body_limit:
            raise PayloadTooLarge(
                f"{size} bytes to {outgoing.destination!r}; this route carries {self._body_limit}:"
                " send a reference, or raise max_payload on the server"
            )
        return b"".join((line, sizes(heading, heading + size), block, body, b"\r\n"))

    async def publish(self, outgoing: Outgoing) -> None:
        """Hand over to the connection; with `confirm`, wait until the server has it."""
        connection = self._connection
        if connection is None or self._stopped:
            raise self._not_running()
        outbox, destination = connection.outbox, outgoing.destination
        line = self._lines.known.get(destination) or self._lines.line(destination)
        frame = self._frame(outgoing, line)
        if outbox.size > TURN:
            await outbox.room()
        if not self._confirm:
            outbox.send(frame)
            return
        await connection.until_connected(self.options.flush_timeout)
        denied = connection.denials.count
        outbox.send(frame)
        await connection.barrier()
        refused = connection.denials.since(denied, "publish", outgoing.destination)
        if refused is not None:
            raise PublishRejected(
                f"{self._address.shown} does not let us publish to {outgoing.destination!r}:"
                f" {refused}; grant this user the permission"
            )

    async def publish_heard(self, outgoing: Outgoing) -> None:
        """Publish with an address at which the server itself says that nobody listens.

        It says so before it answers the flush that follows. Who listens hears an event, not a
        request (`replying.NO_REPLY`). Raises NoResponders, PublishRejected, ConnectionLost.
        """
        connection, questions = self._live, self._questions
        assert questions is not None, "made with the connection"
        marked = msgspec.structs.replace(outgoing, headers={**outgoing.headers, NO_REPLY: "1"})
        line = self._lines.line(outgoing.destination)
        await connection.until_connected(self.options.flush_timeout)
        question = questions.put(outgoing.destination, 1, self.options.flush_timeout)
        try:
            address = b"%b%b " % (questions.address, question.token)
            connection.outbox.send(self._frame(marked, line + address))
            await connection.barrier()
            if question.done() and question.result() is None:
                raise NoResponders(
                    f"nobody listens on {outgoing.destination!r}, and {self._address.shown} keeps"
                    " nothing for later: start who is to get it, or discard the dead letter"
                )
        finally:
            questions.drop(question)

    async def flush(self) -> None:
        """Return when the server has all that was published before. Raises ConnectionLost."""
        await self._live.barrier()

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Subscribe, in a queue group if there is a group. Raises ConfigError, ConnectionLost."""
        connection = self._live
        subjects.check(subscription.pattern)
        if subscription.group is not None:
            subjects.check(subscription.group)
        if subscription.start not in self.capabilities.start:
            raise Unsupported(
                f"subscription {subscription.pattern!r}: core NATS keeps nothing to start from;"
                " use a nats+jetstream:// route for that"
            )
        feed = CoreFeed(connection, self._incoming, subscription.pattern, deliver)
        await feed.start(subscription.group)
        return feed

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        """Return the first reply. Raises NoResponders at once, RequestTimeout."""
        replies = await self._ask(outgoing, timeout, 1)
        if replies is None:
            raise NoResponders(f"nobody listens on {outgoing.destination!r}")
        if not replies:
            raise RequestTimeout(f"no reply from {outgoing.destination!r} within {timeout} s")
        return replies[0]

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        """Return up to `most` replies; at once, and empty, where nobody listens."""
        return await self._ask(outgoing, timeout, most) or []

    async def _ask(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery] | None:
        """Return the replies, None if there are no responders."""
        connection, questions = self._live, self._questions
        assert questions is not None, "made with the connection"
        outbox, destination = connection.outbox, outgoing.destination
        question = questions.put(destination, most, timeout)
        try:
            line = self._lines.known.get(destination) or self._lines.line(destination)
            frame = self._frame(outgoing, b"%b%b%b " % (line, questions.address, question.token))
            if outbox.size > TURN:
                await outbox.room()
            if not connection.connected:
                await connection.until_connected(timeout)
            outbox.send_urgent(frame)
            frames = await question
        finally:
            questions.drop(question)
        if frames is None:
            return None
        deliveries, malformed = self._incoming.read(frames)
        if malformed:
            connection.notify(
                NoticeKind.DROPPED, f"malformed reply: {malformed[0].why}", count=len(malformed)
            )
        return deliveries

    def _denied(self, subject: str) -> None:
        if self._questions is not None:
            self._questions.refuse(
                subject,
                lambda: PublishRejected(
                    f"{self._address.shown} does not let us publish to {subject!r}; grant this"
                    " user the permission"
                ),
            )

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Send to the requester. Raises PayloadTooLarge, InvalidName where nobody waits."""
        outbox = self._live.outbox
        if delivery.reply_to is None:
            raise InvalidName(f"message {delivery.id!r} on {delivery.subject!r} wants no reply")
        line = b"HPUB %b " % subjects.check(delivery.reply_to)
        frame = self._frame(outgoing, line)
        if outbox.size > TURN:
            await outbox.room()
        outbox.send_urgent(frame)

    async def health(self) -> str | None:
        """Make one round trip."""
        try:
            await self._live.barrier(min(5.0, self.options.flush_timeout))
        except ConnectionLost as error:
            return str(error)
        return None

    def permissions(self, needs: Needs) -> str:
        """Return a user of nats-server's configuration (`arc_nats.permissions`)."""
        return permissions.core(needs, self.options)
