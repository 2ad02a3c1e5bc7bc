"""Envelope: one immutable event, as a publisher made it and a reader sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Generic, TypeVar

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


class _Entropy:
    """Random hex digits, fetched from the system 4 KiB at a time: a call a message costs more."""

    __slots__ = ("at", "block")

    def __init__(self) -> None:
        self.block = ""
        self.at = 0

    def take(self, digits: int) -> str:
        """Return `digits` (at most 8192) fresh random hex digits."""
        start = self.at
        self.at = end = start + digits
        found = self.block[start:end]
        if len(found) == digits:
            return found
        self.block = os.urandom(4096).hex()
        self.at = digits
        return self.block[:digits]

    def forget(self) -> None:
        """Drop what is left, so that a forked child never repeats its parent's digits."""
        self.block = ""


_entropy = _Entropy()
os.register_at_fork(after_in_child=_entropy.forget)


class _Clock:
    """The texts of the present millisecond, made once for all messages of it."""

    __slots__ = ("id_prefix", "milli", "timestamp")

    def __init__(self) -> None:
        self.milli = -1
        self.timestamp = self.id_prefix = ""

    def turn(self, milli: int) -> None:
        """Set the texts to the millisecond `milli` since 1970."""
        second, rest = divmod(milli, 1000)
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        digits = f"{milli:012x}"
        self.timestamp = f"{whole}.{rest:03d}Z"
        self.id_prefix = f"{digits[:8]}-{digits[8:]}-7"
        self.milli = milli


_clock = _Clock()


def new_message_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds and 72 random bits.

    The two random bits beside the variant are left at zero.
    """
    milli = time.time_ns() // 1_000_000
    if milli != _clock.milli:
        _clock.turn(milli)
    random = _entropy.take(18)
    return f"{_clock.id_prefix}{random[:3]}-8{random[3:6]}-{random[6:]}"


def new_trace_id() -> str:
    """Return 32 random lower-case hex digits: a W3C trace id, never all zeros in practice."""
    return _entropy.take(32)


def utc_now() -> str:
    """Return the present moment as RFC 3339 in UTC with milliseconds, ending in `Z`."""
    milli = time.time_ns() // 1_000_000
    if milli != _clock.milli:
        _clock.turn(milli)
    return _clock.timestamp
