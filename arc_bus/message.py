"""Message: one delivery on its way through a subscription's pipeline to the handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from arc_bus.transport import Delivery, Verdict

if TYPE_CHECKING:
    from arc_bus.envelope import Envelope
    from arc_bus.policy import Subscription


class Message:
    """What middleware sees, and what a handler gets for a parameter annotated `Message`.

    `attempt` counts handler starts for this message from 1, `redelivered` says whether any reader
    may have seen it before. `failure` is the error of the last failed attempt, or None; `dead`
    becomes True when it went to the dead letters. Both are set before the outer middleware's
    `await` returns.
    """

    __slots__ = ("_decode", "_envelope", "attempt", "dead", "delivery", "failure", "subscription")

    def __init__(
        self,
        delivery: Delivery,
        subscription: Subscription,
        decode: Callable[[Delivery], Envelope[object]],
    ) -> None:
        """Wrap `delivery`; `decode` makes its envelope when first asked for."""
        self.delivery = delivery
        self.subscription = subscription
        self.attempt = 1
        self.failure: BaseException | None = None
        self.dead = False
        self._decode = decode
        self._envelope: Envelope[object] | None = None

    @property
    def envelope(self) -> Envelope[object]:
        """The decoded event, payload included; decoded once. Raises DecodeError."""
        envelope = self._envelope
        if envelope is None:
            envelope = self._envelope = self._decode(self.delivery)
        return envelope

    @property
    def id(self) -> str:
        """The publisher's message id; empty if an older publisher gave none."""
        return self.delivery.id or ""

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
