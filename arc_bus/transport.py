"""Transport, Feed, Delivery, Capabilities: all that the author of a transport plugin reads.

A transport moves bytes and headers. It knows nothing of payload types, retries or dead letters:
`consumer.py` decodes, runs handlers and decides verdicts, the same for every transport. What a
transport cannot do it declares absent in its `Capabilities`, and raises `Unsupported` when asked.
"""

# Over 300 lines: it is all that the author of a transport reads, so it stands in one file.

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from arc_bus.errors import AlreadySettled, Unsupported
from arc_bus.notice import Observer
from arc_bus.secret import redact

if TYPE_CHECKING:
    from arc_bus.permissions import Needs
    from arc_bus.policy import Subscription


class Guarantee(Enum):
    """How often a message that was accepted is delivered to a group."""

    AT_MOST_ONCE = 1
    AT_LEAST_ONCE = 2


class PublishProof(Enum):
    """What `await publish()` proves when it returns; each member includes the ones before it."""

    BUFFERED = 1
    SERVER_RECEIVED = 2
    PERSISTED = 3


class WhileDisconnected(StrEnum):
    """What `publish()` does while there is no connection."""

    RAISE = "raise"
    BUFFER = "buffer"
    WAIT = "wait"
    NEVER_DISCONNECTED = "never_disconnected"


class Survives(StrEnum):
    """What a group's unsettled messages outlive."""

    CLIENT_RESTART = "client_restart"
    BROKER_RESTART = "broker_restart"


class StartAt(StrEnum):
    """Where a group that did not exist before begins to read."""

    NEW = "new"
    EARLIEST = "earliest"


class Ordering(StrEnum):
    """Within what the order of publishing is the order of first delivery."""

    NONE = "none"
    PER_KEY = "per_key"
    PER_SUBJECT = "per_subject"


class OrderSurvives(StrEnum):
    """What the declared ordering outlives."""

    GROUP = "group"
    REDELIVERY = "redelivery"
    RECONNECT = "reconnect"


class Ack(Enum):
    """What `await feed.ack()` proves when it returns."""

    NONE = 0
    BUFFERED = 1
    CONFIRMED = 2


class Nack(Enum):
    """Whether a delivery can be given back, and whether with a delay for each."""

    NONE = 0
    IMMEDIATE = 1
    DELAYED = 2


class Attempts(Enum):
    """How far `Delivery.attempt` can be trusted: not at all, as a hint, or exactly."""

    NONE = 0
    HINT = 1
    EXACT = 2


class Wildcard(StrEnum):
    """Pattern forms that `subscribe` takes: `*` for one token, `>` for the rest."""

    TOKEN = "token"
    TAIL = "tail"


class HeaderRules(msgspec.Struct, frozen=True, kw_only=True):
    """What headers survive: any Unicode text or printable ASCII, and the sum of bytes allowed."""

    unicode: bool = True
    max_bytes: int = 64 * 1024


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one transport can do; durations in seconds, sizes in bytes.

    Declared as a class attribute; an instance may declare less (never more) once its URL and
    options are known. The conformance kit checks both directions: what is declared present works,
    what is declared absent raises `Unsupported`.
    """

    delivery: Guarantee
    publish: PublishProof
    while_disconnected: WhileDisconnected
    durable: frozenset[Survives] = frozenset()
    start: frozenset[StartAt] = frozenset({StartAt.NEW})
    groups: bool = True
    ordering: Ordering = Ordering.NONE
    ordering_survives: frozenset[OrderSurvives] = frozenset()
    ack: Ack = Ack.NONE
    nack: Nack = Nack.NONE
    reject: bool = False
    ack_deadline: float | None = None
    extend: bool = False
    attempts: Attempts = Attempts.NONE
    request_reply: bool = False
    no_responders: bool = False
    wildcards: frozenset[Wildcard] = frozenset()
    discovery_lag: float = 0.0
    headers: HeaderRules = HeaderRules()
    max_payload: int = 1024 * 1024
    publish_dedup: float | None = None
    prefetch_bounded: bool = False
    browse: bool = False


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message as a transport sends it.

    `headers` never holds the message id: the transport writes `id` in its own native form
    (`Nats-Msg-Id`, a Pulsar property) so that broker-side deduplication sees it. `key` is the
    partition key, None where the message has none. Header names are lower case. `clean` says that
    headers and id were looked at just now and hold nothing that a wire could not, so that a
    transport need not look again; whoever gives it other headers takes it back.
    """

    destination: str
    body: bytes
    headers: Mapping[str, str]
    id: str
    key: str | None = None
    clean: bool = False


class Verdict(StrEnum):
    """What became of a delivery, seen from the broker."""

    ACK = "ack"
    NACK = "nack"
    REJECT = "reject"


class Delivery(msgspec.Struct, weakref=True):
    """One message as it arrived, and its one verdict.

    `subject` is the concrete destination it was published to, `id` the publisher's message id
    or None, `reply_to` the address of a waiting requester or None. `attempt` counts deliveries to
    this group from 1 as far as `Capabilities.attempts` allows. `headers` have lower-case names and
    may be a lazy mapping; malformed header bytes are the transport's to quarantine, never to raise
    here. `token` belongs to the transport alone.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    id: str | None = None
    key: str | None = None
    reply_to: str | None = None
    attempt: int = 1
    token: object = None
    verdict: Verdict | None = None

    def settle(self, verdict: Verdict) -> bool:
        """Note the verdict; True the first time, False when it repeats the one noted.

        Every `Feed` calls this first, so that settling twice means the same on all transports.
        Raises AlreadySettled when it differs from the one noted.
        """
        if self.verdict is None:
            self.verdict = verdict
            return True
        if self.verdict is verdict:
            return False
        raise AlreadySettled(
            f"message {self.id!r} on {self.subject!r} is settled as {self.verdict.value!r}"
            f" and cannot become {verdict.value!r}"
        )


Deliver: TypeAlias = Callable[[list[Delivery]], None]
"""How a transport hands over what arrived: a plain call on the loop's thread that never raises."""


class Feed(Protocol):
    """The live side of one subscription at one transport.

    Deliveries are pushed in batches through the `Deliver` callable that `subscribe` was given,
    never more than was granted where `Capabilities.prefetch_bounded`.
    """

    def grant(self, count: int) -> None:
        """Allow `count` more deliveries; a new feed has none. Ignored if prefetch is unbounded."""
        ...

    async def ack(self, delivery: Delivery) -> None:
        """Settle as done. Returns when `Capabilities.ack` is true of it; a no-op where it is NONE.

        Raises NotSettled when the verdict did not reach the broker (closed, disconnected), and
        AlreadySettled after another verdict.
        """
        ...

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Give back, to come again after `delay` seconds. Raises Unsupported, NotSettled."""
        ...

    async def reject(self, delivery: Delivery) -> None:
        """Settle as never to be delivered again. Raises Unsupported, NotSettled."""
        ...

    async def extend(self, delivery: Delivery) -> None:
        """Restart the ack deadline of an unsettled delivery. Raises Unsupported, NotSettled."""
        ...

    async def stop(self) -> None:
        """Stop intake at the broker; after it nothing more is delivered, and verdicts still work.

        What had reached the client already has been delivered, or will come to another member.
        """
        ...

    async def close(self) -> None:
        """Flush the verdicts and release the feed. What is unsettled is redelivered. Idempotent."""
        ...

    async def pending(self) -> int | None:
        """Return how many messages wait for this group at the broker, or None if it cannot tell."""
        ...


Refused: TypeAlias = Callable[[Exception], None]
"""Hears why a verdict that nobody waited for did not reach the broker."""


@runtime_checkable
class AcksSoon(Protocol):
    """What a `Feed` may have besides, where its `ack` waits for the broker.

    A worker that waited for every confirmation would do nothing else meanwhile, so the bus says
    acks by this where there is it, and goes on with the next message.
    """

    def ack_soon(self, delivery: Delivery, refused: Refused) -> None:
        """Begin what `ack` does; `refused` gets what `ack` would have raised. Never raises.

        `Feed.close` waits until what was begun has ended.
        """
        ...


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the bus tells a transport when it makes one: one per distinct URL and options.

    `prefixes` are the route prefixes served by it, for transports that keep streams or topics by
    name. Without `provision` nothing is made at the broker, unless URL or options ask for it.
    `report` takes `Notice`s (connected, lost, restored, dropped, error) from any point on the
    loop's thread.
    """

    url: str
    options: object = None
    service: str = "arc-bus"
    prefixes: tuple[str, ...] = ()
    provision: bool = True
    report: Observer = lambda _notice: None

    def __repr__(self) -> str:
        """Show the URL without its secrets."""
        return f"Endpoint({redact(self.url)!r}, prefixes={self.prefixes})"


class Transport:
    """The base class of every transport; a subclass overrides what its broker can do.

    Nothing is connected before `start()`. Every method may be called from one event loop only,
    the one that ran `start()`. After `stop()` every call but `stop()` raises BusStopped. Vendor
    exceptions never leave it: they arrive as the `TransportError`s of `arc_bus.errors`.
    """

    capabilities: Capabilities
    remarks: Sequence[str] = ()
    """What was asked of it and could not be verified at start; health checks show it."""

    async def start(self) -> None:
        """Connect. Raises ConnectFailed, naming the URL (never its password) and the remedy."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Flush what was accepted, close the connection. Idempotent; feeds are closed before."""
        raise NotImplementedError

    async def publish(self, outgoing: Outgoing) -> None:
        """Return once `Capabilities.publish` is proved for this message.

        Names and header values were validated by the bus. Raises PayloadTooLarge before anything
        reaches the wire, ConnectionLost, PublishRejected, PublishUnconfirmed.
        """
        raise NotImplementedError

    async def publish_heard(self, outgoing: Outgoing) -> None:
        """Publish, and return when the server has it for somebody; what is kept needs no listener.

        A replay's dead letter is removed after it. Raises as `publish` and `flush` do, and
        NoResponders where nothing is kept and nobody is known to listen.
        """
        await self.publish(outgoing)
        if self.capabilities.publish is PublishProof.BUFFERED:
            await self.flush()

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Begin to receive; returns when a message published from now on will be delivered.

        With a `group` the members share its messages, and where `durable` the group remembers its
        position; without one this subscriber gets every message while it is there. Options that
        only this transport knows are in `subscription.options`. Raises Unsupported, ConfigError.
        """
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when all that was published before the call is with the server."""
        raise NotImplementedError

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        """Send and wait for the first reply. Raises NoResponders at once, RequestTimeout."""
        raise Unsupported(f"{type(self).__name__} has no request and reply")

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        """Send and collect up to `most` replies within `timeout` seconds; fewer is no error."""
        raise Unsupported(f"{type(self).__name__} has no request and reply")

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Send `outgoing` to `delivery.reply_to`; its own `destination` is ignored."""
        raise Unsupported(f"{type(self).__name__} has no request and reply")

    async def retain(self, pattern: str) -> None:
        """Make sure that what is published to `pattern` from now on is kept for `browse`.

        Called at start for every dead-letter destination. A no-op where nothing is ever kept.
        """

    def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Iterate over what `pattern` keeps, oldest first, to its present end; settles nothing.

        Each delivery can be given to `discard`. Raises Unsupported where nothing is kept.
        """
        raise Unsupported(f"{type(self).__name__} keeps nothing that could be browsed")

    async def discard(self, delivery: Delivery) -> None:
        """Remove one browsed message for good; a no-op if it is gone already."""
        raise Unsupported(f"{type(self).__name__} keeps nothing that could be discarded")

    async def health(self) -> str | None:
        """Make one round trip; return None if well, else one line saying what is wrong."""
        raise NotImplementedError

    def permissions(self, needs: Needs) -> str:
        """Return the least that a service with `needs` must be allowed, as an admin writes it down.

        Works without a connection. Raises Unsupported where there are no permissions to give.
        """
        raise Unsupported(f"{type(self).__name__} knows no permissions")


TransportFactory: TypeAlias = Callable[[Endpoint], Transport]
"""Makes a transport for an endpoint; imports its vendor's library only now."""
