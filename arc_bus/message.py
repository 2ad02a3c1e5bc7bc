"""Message: one delivery on its way through a subscription's pipeline to the handler."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from arc_bus.transport import Delivery, Verdict

if TYPE_CHECKING:
    from arc_bus.envelope import Envelope
    from arc_bus.policy import Subscription
    from arc_bus.reader import Reader

_UNREAD: Any = object()


class Message(msgspec.Struct, eq=False, weakref=True):
    """What middleware sees, and what a handler gets for a parameter annotated `Message`.

    `attempt` counts handler starts for this message from 1. `received` is the loop's time when it
    came. `failure` is the error of the last
    failed attempt, or None; `dead` becomes True when it went to the dead letters; both are set
    before the outer middleware's `await` returns. `lane` is its key where the subscription has
    `order_by`.
    """

    delivery: Delivery
    subscription: Subscription
    reader: Reader[Any]
    received: float = 0.0
    attempt: int = 1
    failure: BaseException | None = None
    dead: bool = False
    lane: object = None
    _payload: Any = _UNREAD
    _envelope: Envelope[Any] | None = None

    @property
    def payload(self) -> Any:
        """The payload as the handler's type, decoded once an attempt. Raises DecodeError."""
        payload = self._payload
        if payload is _UNREAD:
            payload = self._payload = self.reader.payload(self.delivery)
        return payload

    @property
    def envelope(self) -> Envelope[Any]:
        """The event around `payload`, decoded once an attempt. Raises DecodeError."""
        envelope = self._envelope
        if envelope is None:
            envelope = self._envelope = self.reader.envelope(self.delivery, self.payload)
        return envelope

    @property
    def trace_id(self) -> str:
        """The envelope's trace id, read without the rest. Raises DecodeError."""
        envelope = self._envelope
        return self.reader.trace_id(self.delivery) if envelope is None else envelope.trace_id

    def forget(self) -> None:
        """Drop what was decoded, so that the next attempt sees the message as it was published."""
        self._payload = _UNREAD
        self._envelope = None

    @property
    def id(self) -> str:
        """The publisher's message id; empty if an older publisher gave none.

        What stands behind a `~` tells replays apart and is not the publisher's.
        """
        return (self.delivery.id or "").partition("~")[0]

    @property
    def subject(self) -> str:
        """The concrete subject or topic it was published to."""
        return self.delivery.subject

    @property
    def headers(self) -> Mapping[str, str]:
        """The transport headers, names in lower case."""
        return self.delivery.headers

    @property
    def redelivered(self) -> bool:
        """Whether a handler may have seen this message before."""
        return self.attempt > 1 or self.delivery.attempt > 1

    @property
    def verdict(self) -> Verdict | None:
        """How it was settled with the broker, None while it is not."""
        return self.delivery.verdict


current_message: ContextVar[Message | None] = ContextVar("arc_bus_current_message", default=None)
"""The message whose handler is running, so that what it publishes continues the same trace id."""
