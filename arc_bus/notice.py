"""Notice: one thing the bus or a transport reports to observers, outside the message path."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec


class NoticeKind(StrEnum):
    """What happened. Every loss that the client can see is one of `DROPPED` or `ABANDONED`."""

    CONNECTED = "connected"
    LOST = "lost"
    RESTORED = "restored"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    DROPPED = "dropped"
    RETURNED = "returned"
    ABANDONED = "abandoned"
    ERROR = "error"
    STOPPED = "stopped"


LOSSES = frozenset({NoticeKind.DROPPED, NoticeKind.ABANDONED})
"""What is lost: never delivered again by this bus, or by a transport that redelivers nothing."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One report: `count` messages, or one connection event when `count` is 0.

    `transport` is the route's URL without credentials, `pattern` the subscription's pattern
    (never a concrete subject, so that it is safe as a metric label) or None.
    """

    kind: NoticeKind
    transport: str = ""
    pattern: str | None = None
    count: int = 0
    detail: str = ""
    error: BaseException | None = None


Observer: TypeAlias = Callable[[Notice], None]
"""Called on the event loop's thread; must not block. What it raises is logged, never passed on."""
