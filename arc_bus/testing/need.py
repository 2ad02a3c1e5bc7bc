"""Need: what a check asks of a transport's capabilities."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from arc_bus.transport import (
    Ack,
    Attempts,
    Capabilities,
    Guarantee,
    Nack,
    Ordering,
    OrderSurvives,
    PublishProof,
    StartAt,
    Survives,
    Wildcard,
)


class Need(msgspec.Struct, frozen=True):
    """A capability by name, and whether a transport has it."""

    name: str
    met: Callable[[Capabilities], bool]

    def __invert__(self) -> Need:
        """Return the need that the capability be declared absent."""
        return Need(f"no {self.name}", lambda capabilities: not self.met(capabilities))


REDELIVERY = Need("delivery=AT_LEAST_ONCE", lambda c: c.delivery is Guarantee.AT_LEAST_ONCE)
SERVER_RECEIVED = Need("publish>=SERVER_RECEIVED", lambda c: c.publish is not PublishProof.BUFFERED)
SURVIVES_CLIENT = Need("durable=CLIENT_RESTART", lambda c: Survives.CLIENT_RESTART in c.durable)
SURVIVES_BROKER = Need("durable=BROKER_RESTART", lambda c: Survives.BROKER_RESTART in c.durable)
START_NEW = Need("start=NEW", lambda c: StartAt.NEW in c.start)
START_EARLIEST = Need("start=EARLIEST", lambda c: StartAt.EARLIEST in c.start)
GROUPS = Need("groups", lambda c: c.groups)
PER_SUBJECT = Need("ordering=PER_SUBJECT", lambda c: c.ordering is Ordering.PER_SUBJECT)
ORDERED = Need("ordering", lambda c: c.ordering is not Ordering.NONE)
ORDER_IN_GROUP = Need(
    "ordering_survives=GROUP", lambda c: OrderSurvives.GROUP in c.ordering_survives
)
ORDER_AFTER_NACK = Need(
    "ordering_survives=REDELIVERY", lambda c: OrderSurvives.REDELIVERY in c.ordering_survives
)
ORDER_OVER_RECONNECT = Need(
    "ordering_survives=RECONNECT", lambda c: OrderSurvives.RECONNECT in c.ordering_survives
)
ACK = Need("ack", lambda c: c.ack is not Ack.NONE)
ACK_CONFIRMED = Need("ack=CONFIRMED", lambda c: c.ack is Ack.CONFIRMED)
NACK = Need("nack", lambda c: c.nack is not Nack.NONE)
NACK_DELAYED = Need("nack=DELAYED", lambda c: c.nack is Nack.DELAYED)
REJECT = Need("reject", lambda c: c.reject)
DEADLINE = Need("ack_deadline", lambda c: c.ack_deadline is not None)
EXTEND = Need("extend", lambda c: c.extend)
ATTEMPTS = Need("attempts", lambda c: c.attempts is not Attempts.NONE)
ATTEMPTS_EXACT = Need("attempts=EXACT", lambda c: c.attempts is Attempts.EXACT)
REQUEST_REPLY = Need("request_reply", lambda c: c.request_reply)
NO_RESPONDERS = Need("no_responders", lambda c: c.no_responders)
TOKEN = Need("wildcards=TOKEN", lambda c: Wildcard.TOKEN in c.wildcards)
TAIL = Need("wildcards=TAIL", lambda c: Wildcard.TAIL in c.wildcards)
UNICODE_HEADERS = Need("headers.unicode", lambda c: c.headers.unicode)
DEDUP = Need("publish_dedup", lambda c: c.publish_dedup is not None)
BOUNDED = Need("prefetch_bounded", lambda c: c.prefetch_bounded)
BROWSE = Need("browse", lambda c: c.browse)
