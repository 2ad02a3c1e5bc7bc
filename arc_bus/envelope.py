"""Envelope: one immutable event, as a publisher made it and a reader sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

ENVELOPE_FIELDS = ("timestamp", "trace_id", "service", "event_type", "message_id")
"""The envelope's fields on the wire, in the order they are written (contracts, "Wire format")."""


class Envelope(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A payload, and who published it where and when.

    `timestamp` is RFC 3339 in UTC ending in `Z`; `trace_id` 32 lower-case hex digits, or whatever
    an older publisher sent (a UUID). `message_id` is a UUIDv7 when made here, and empty when an
    older publisher gave none. `headers` are the transport headers without the message id; `key`
    is the partition key. Attempts and acknowledgement are not the event's: see `Message`.
    """

    destination: str
    payload: T
    timestamp: str
    trace_id: str
    service: str
    message_id: str
    event_type: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Fields(msgspec.Struct, kw_only=True):
    """The envelope's fields as they stand on the wire, every one optional for older services."""

    timestamp: str = ""
    trace_id: str = ""
    service: str | dict[str, Any] = ""
    event_type: str | None = None
    message_id: str = ""

    def publisher(self) -> str:
        """Return the service's name; where the payload's own `service` is an object, its `name`."""
        if isinstance(self.service, str):
            return self.service
        name = self.service.get("name", "")
        return name if isinstance(name, str) else ""


class _Source:
    """The present millisecond's texts, made once for all its messages, and randomness.

    The random digits of a message id are drawn once a millisecond and then counted up (RFC 9562
    §6.2, method 2), which is cheaper than drawing them each time, and sorts. Their last two come
    from a table, for all else of 256 ids is the same text. What threads share here, a list's `pop`
    and an iterator's `next`, is atomic.
    """

    __slots__ = ("blocks", "day", "digits", "id_prefix", "ids", "milli", "second", "timestamp")

    def __init__(self) -> None:
        self.digits: list[str] = []
        self.forget()

    def forget(self) -> None:
        """Begin anew, so that a forked child never repeats its parent's ids."""
        self.digits.clear()
        self.milli = self.second = -1
        self.blocks = count()
        self.ids: Iterator[str] = iter(())
        self.day = self.timestamp = self.id_prefix = ""

    def draw(self) -> str:
        """Return 32 fresh random hex digits; the system is asked for 4 KiB at a time."""
        while True:
            try:
                return self.digits.pop()
            except IndexError:
                self.digits += os.urandom(4096).hex("-", 16).split("-")

    def turn(self, milli: int) -> None:
        """Set the texts to the millisecond `milli` since 1970."""
        second, rest = divmod(milli, 1000)
        if second != self.second:
            self.day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self.second = second
        digits, random = f"{milli:012x}", self.draw()
        self.timestamp = f"{self.day}.{rest:03d}Z"
        self.id_prefix = f"{digits[:8]}-{digits[8:]}-7{random[:3]}-8{random[3:6]}-"
        self.blocks = count(int(random[6:16], 16) >> 1)  # halved, so that it stays ten digits
        self.ids = iter(())
        self.milli = milli

    def more(self) -> str:
        """Return the next id where a block of 256 is used up, and begin another."""
        ids = map(f"{self.id_prefix}{next(self.blocks):010x}".__add__, _LAST_DIGITS)
        id = next(ids)
        self.ids = ids
        return id


_LAST_DIGITS = [f"{number:02x}" for number in range(256)]
_source = _Source()
os.register_at_fork(after_in_child=_source.forget)


def new_message_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7); those of one process sort in the order they were made.

    63 of its bits are drawn anew each millisecond, in which it counts up by one from there.
    """
    return stamp()[1]


def stamp() -> tuple[str, str]:
    """Return the present moment as `utc_now` does, and a new message id."""
    milli = time.time_ns() // 1_000_000
    source = _source
    if milli != source.milli:
        source.turn(milli)
    return source.timestamp, next(source.ids, None) or source.more()


def new_trace_id() -> str:
    """Return 32 random lower-case hex digits: a W3C trace id, never all zeros in practice."""
    try:
        return _source.digits.pop()
    except IndexError:
        return _source.draw()


def utc_now() -> str:
    """Return the present moment as RFC 3339 in UTC with milliseconds, ending in `Z`."""
    milli = time.time_ns() // 1_000_000
    if milli != _source.milli:
        _source.turn(milli)
    return _source.timestamp
