"""The aliases of the two pipelines, their slots, and the fold that builds them once, at start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from arc_bus.envelope import Envelope
    from arc_bus.message import Message
    from arc_bus.transport import Delivery

Handler: TypeAlias = "Callable[[Message], Awaitable[object]]"
"""Takes a message; its result is the reply where a requester waits."""

ConsumeMiddleware: TypeAlias = "Callable[[Handler], Handler]"
"""Wraps a handler. Runs once for each delivery or attempt, depending on its slot."""

Sender: TypeAlias = "Callable[[Envelope[object]], Awaitable[Delivery | None]]"
"""Sends an envelope; returns the reply for a request, None for a publish."""

PublishMiddleware: TypeAlias = "Callable[[Sender], Sender]"
"""Wraps a sender; may hand on a changed copy of the envelope (its headers, its trace id)."""


class Operation(Enum):
    """What a publish pipeline does; each has a pipeline of its own."""

    PUBLISH = "publish"
    REQUEST = "request"


class Slot(Enum):
    """Where consume middleware runs. The order is fixed here, not by who registered first.

    `DELIVERY` (tracing) > dead letter > retry > time-out > `ATTEMPT` > dedup > `ONCE` > `HANDLER`.
    `ONCE` is for the inbox that a subscription with `once=True` asks for, and for nothing else.
    """

    DELIVERY = 1
    ATTEMPT = 2
    ONCE = 3
    HANDLER = 4


Wrapped = TypeVar("Wrapped")


def compose(middleware: Iterable[Callable[[Wrapped], Wrapped]], innermost: Wrapped) -> Wrapped:
    """Fold `middleware` round `innermost`; the first listed runs outermost."""
    for wrap in reversed(tuple(middleware)):
        innermost = wrap(innermost)
    return innermost
