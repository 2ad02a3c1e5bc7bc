"""Notice: one thing the bus or a transport reports to observers, outside the message path.

What went wrong is also written to the logger `arc_bus`, so that a service which observes nothing is
not silent. Nobody's words get there: errors quote what users said, and logs are read by many.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConfigError,
    DecodeError,
    RemoteError,
    RequestError,
    TransportError,
    text_of,
)

if TYPE_CHECKING:
    from arc_bus.message import Message

log = logging.getLogger("arc_bus")


class NoticeKind(StrEnum):
    """What happened. Every loss that the client can see is one of `DROPPED` or `ABANDONED`."""

    CONNECTED = "connected"
    LOST = "lost"
    RESTORED = "restored"
    RETRIED = "retried"
    FAILED = "failed"
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
    (never a concrete subject, so that it is safe as a metric label) or None. `detail` is logged: it
    holds nothing of a message but names and numbers. `error` may quote one.
    """

    kind: NoticeKind
    transport: str = ""
    pattern: str | None = None
    count: int = 0
    detail: str = ""
    error: BaseException | None = None


Observer: TypeAlias = Callable[[Notice], None]
"""Called on the event loop's thread; must not block. What it raises is logged, never passed on."""

DROPS_TOLD = 10.0
"""Seconds between two log lines about what one subscription drops: overload drops a lot."""

_LEVELS = {
    **dict.fromkeys((NoticeKind.RETRIED, NoticeKind.RESTORED), logging.INFO),
    **dict.fromkeys((NoticeKind.ERROR, NoticeKind.LOST, NoticeKind.FAILED), logging.WARNING),
    **dict.fromkeys((NoticeKind.DEAD_LETTERED, *LOSSES), logging.WARNING),
}


class Log:
    """Writes the notices of one service to the logger `arc_bus`; the application configures that.

    `INFO` for what mends itself, else `WARNING`, with the traceback of a handler's error. Of an
    error only its class is told, and where it was raised; a text only where it is ours.
    """

    def __init__(self, service: str) -> None:
        """Write as `service`."""
        self._service = service
        self._dropping: dict[tuple[str, str | None], tuple[float, int]] = {}

    def write(self, notice: Notice, message: Message | None) -> None:
        """Write `notice`, which came up while `message` was handled, or else in no handler."""
        level = _LEVELS.get(notice.kind)
        if level is None or not log.isEnabledFor(level):
            return
        error, count = notice.error, notice.count
        if notice.kind is NoticeKind.DROPPED and error is None:
            count = self._drops(notice)
            if not count:
                return
        if message is not None and message.subscription.pattern != notice.pattern:
            message = None  # reported by a transport of which the handler made use
        failed = message is not None and error is message.failure
        shown = error if level > logging.INFO and (failed or not _speaks(error)) else None
        parts = [
            f"{self._service}: {notice.kind}{f' {count}' if count > 1 else ''}{_place(notice)}",
            notice.detail,
            "" if message is None else _named(message),
            "" if error is None else _told(error),
        ]
        if notice.kind is NoticeKind.DEAD_LETTERED and message is not None:
            id = f" {message.id!r}" if message.id else ""
            command = "show" if id else "ls"
            parts.append(f"see `arc-bus dlq {command} {message.subject!r}{id}`")
        text = "; ".join(filter(None, parts))
        log.log(level, "%s", text, exc_info=None if shown is None else silenced(shown))

    def _drops(self, notice: Notice) -> int:
        """Return how many drops to tell of now; 0 where that was done a moment ago."""
        place, now = (notice.transport, notice.pattern), time.monotonic()
        told, dropped = self._dropping.get(place, (-DROPS_TOLD, 0))
        dropped += notice.count
        due = now - told >= DROPS_TOLD
        self._dropping[place] = (now, 0) if due else (told, dropped)
        return dropped if due else 0


def _place(notice: Notice) -> str:
    pattern = f" on {notice.pattern!r}" if notice.pattern is not None else ""
    return f"{pattern} at {notice.transport}" if notice.transport else pattern


def _named(message: Message) -> str:
    id = repr(message.id) if message.id else "without an id"
    return f"message {id} to {message.subject!r}, attempt {message.attempt}"


def _speaks(error: BaseException | None) -> bool:
    """Return whether the text of `error` is ours: a remedy, and nothing that a message says."""
    ours = (ConfigError, BusStopped, TransportError, RequestError)
    made_here = type(error).__module__ == ArcBusError.__module__
    return made_here and isinstance(error, ours) and not isinstance(error, RemoteError)


def _told(error: BaseException) -> str:
    name = type(error).__qualname__
    if _speaks(error):
        return f"{name}: {text_of(error)}"
    return name + _position(error) if isinstance(error, DecodeError) else name


def _position(error: DecodeError) -> str:
    """Return at which byte or field a body could not be read; without what stands there."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return f" at byte {cause.start}"
    said = "" if cause is None else text_of(cause)
    found = re.search(r" - at `(\$[^`]*)`\Z| \((byte \d+)\)\Z", said)
    return "" if found is None else f" at {found[1] or found[2]}"


def _inner(error: BaseException) -> tuple[BaseException, ...]:
    group = isinstance(error, BaseExceptionGroup)
    return cast("BaseExceptionGroup[BaseException]", error).exceptions if group else ()


_LONGEST_CHAIN = 10
"""Errors behind an error that are told; beyond that there is no end, perhaps."""


def silenced(error: BaseException, most: int = _LONGEST_CHAIN) -> BaseException:
    """Return what has the traceback and classes of `error` and its causes, but not their words."""
    kind = type(error)
    name = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    shown: BaseException
    inner = _inner(error)[:most]
    if inner:
        shown = BaseExceptionGroup("", [silenced(each, most - 1) for each in inner])
    else:
        words = (text_of(error),) if _speaks(error) else ()
        shown = type(kind.__name__, (Exception,), name)(*words)
    if most and error.__cause__ is not None:
        shown.__cause__ = silenced(error.__cause__, most - 1)
    elif most and error.__context__ is not None and not error.__suppress_context__:
        shown.__context__ = silenced(error.__context__, most - 1)
    return shown.with_traceback(error.__traceback__)
