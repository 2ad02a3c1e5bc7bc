"""Stored: one published message in the broker; Entry: what one group knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from arc_bus.transport import Outgoing

OVERHEAD = 256
"""Bytes that a message is counted with beside its body: about what its objects take in CPython."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as every group gets it; `number` counts up in the order of publishing.

    `headers` is read-only, so that neither a publisher's nor a handler's change can reach another.
    """

    number: int
    subject: str
    body: bytes
    headers: Mapping[str, str]
    id: str
    key: str | None
    reply_to: str | None
    size: int


def store(number: int, outgoing: Outgoing, reply_to: str | None) -> Stored:
    """Return `outgoing` as the broker keeps it."""
    headers = outgoing.headers
    return Stored(
        number,
        outgoing.destination,
        outgoing.body,
        MappingProxyType(dict(headers)) if headers else _NO_HEADERS,
        outgoing.id,
        outgoing.key,
        reply_to,
        len(outgoing.body) + OVERHEAD,
    )


class Entry(msgspec.Struct, gc=False):
    """A message that a group was given at least once: how often, and until when it is leased."""

    stored: Stored
    attempt: int = 0
    deadline: float = 0.0
