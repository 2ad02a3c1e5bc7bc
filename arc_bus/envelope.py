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
    """Random hex digits, fetched from the system in blocks of 4 KiB: a call a message costs more."""

    __slots__ = ("at", "block")

    def __init__(self) -> None:
        self.block = ""
        self.at = 0

    def take(self, digits: int) -> str:
        """Return `digits` (at most 8192) fresh random hex digits."""
        start = self.at
        end = start + digits
        if end > len(self.block):
            self.block = os.urandom(4096).hex()
            start, end = 0, digits
        self.at = end
        return self.block[start:end]

    def forget(self) -> None:
        """Drop what is left, so that a forked child never repeats its parent's digits."""
        self.block = ""
        self.at = 0


_entropy = _Entropy()
os.register_at_fork(after_in_child=_entropy.forget)

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_message_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, 74 random bits."""
    random = _entropy.take(19)
    moment = f"{time.time_ns() // 1_000_000:012x}"
    return (
        f"{moment[:8]}-{moment[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:]}"
    )


def new_trace_id() -> str:
    """Return 32 random lower-case hex digits: a W3C trace id, never all zeros in practice."""
    return _entropy.take(32)


class _Second:
    """The formatted prefix of the current second, made once a second instead of once a message."""

    __slots__ = ("number", "prefix")

    def __init__(self) -> None:
        self.number = -1
        self.prefix = ""


_second = _Second()


def utc_now() -> str:
    """Return the present moment as RFC 3339 in UTC with microseconds, ending in `Z`."""
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    if second != _second.number:
        _second.prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second.number = second
    return f"{_second.prefix}{nanos // 1000:06d}Z"
