"""Stored: one published message in the broker; Entry: what one group knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from arc_bus.transport import Outgoing

OVERHEAD = 256
"""Bytes that a message is counted with beside its body: about what its objects take in CPython."""


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


class Shelf:
    """Makes messages of what is published, numbered; equal headers in a row share one mapping."""

    __slots__ = ("_headers", "number")

    def __init__(self) -> None:
        self.number = 0
        self._headers: Mapping[str, str] = MappingProxyType({})

    def store(self, outgoing: Outgoing, reply_to: str | None = None) -> Stored:
        """Return `outgoing` as the broker keeps it."""
        headers = self._headers
        if headers != outgoing.headers:
            headers = self._headers = MappingProxyType(dict(outgoing.headers))
        self.number = number = self.number + 1
        body = outgoing.body
        return Stored(
            number,
            outgoing.destination,
            body,
            headers,
            outgoing.id,
            outgoing.key,
            reply_to,
            len(body) + OVERHEAD,
        )


class Entry(msgspec.Struct, gc=False):
    """A message that a group was given at least once: how often, and until when it is leased."""

    stored: Stored
    attempt: int = 0
    deadline: float = 0.0
