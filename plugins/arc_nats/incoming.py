"""Incoming: frames into deliveries; what is malformed is set aside and counted, never passed on."""

from __future__ import annotations

from typing import Final, NamedTuple

from arc_bus.replying import NO_REPLY
from arc_bus.transport import Delivery
from arc_nats import subjects
from arc_nats.headers import NOTHING, NotHeaders, Reader
from arc_nats.parser import Frame

ACKABLE: Final = b"$JS.ACK."
_NO_REPLY: Final = b"\r\n%b:" % NO_REPLY.encode()


class Malformed(NamedTuple):
    """A message that is set aside: what is wrong with it, and its reply subject."""

    why: str
    reply: bytes | None


class Incoming:
    """Reads the messages of one connection."""

    def __init__(self) -> None:
        """Remember no subject yet."""
        self._subjects = subjects.Incoming()
        self._headers = Reader()

    def read(
        self, frames: list[Frame], *, stored: bytes | None = None
    ) -> tuple[list[Delivery], list[Malformed]]:
        """Return the deliveries in `frames`, and why others could not become one.

        With `stored` the reply subject is JetStream's: it holds the attempt, is the delivery's
        token, and not for replies; `stored` is how it begins for a first attempt, so that most
        need not be taken apart.
        """
        deliveries: list[Delivery] = []
        malformed: list[Malformed] = []
        known, learn, read = self._subjects.known, self._subjects.learn, self._headers.read
        for subject, reply, block, body in frames:
            name = known.get(subject) or learn(subject)
            if name is None:
                malformed.append(Malformed(f"a subject that is not text: {subject[:80]!r}", reply))
                continue
            if block is None:
                id, key, found = NOTHING
            else:
                try:
                    id, key, found = read(block)
                except NotHeaders as error:
                    malformed.append(Malformed(f"{error}, on {name!r}", reply))
                    continue
            if reply is None:
                deliveries.append(Delivery(name, body, found, id, key))
            elif stored is not None:
                count = 1 if reply.startswith(stored) else attempt(reply)
                deliveries.append(Delivery(name, body, found, id, key, None, count, reply))
            elif block is not None and _NO_REPLY in block:
                deliveries.append(Delivery(name, body, found, id, key))
            elif (answer := subjects.text(reply)) is not None:
                deliveries.append(Delivery(name, body, found, id, key, answer))
            else:
                malformed.append(Malformed(f"a reply subject that is not text, on {name!r}", reply))
        return deliveries, malformed


def attempt(reply: bytes) -> int:
    """Return the delivery count in JetStream's reply subject, 1 if it holds none.

    Its tokens are `$JS.ACK.<stream>.<consumer>.<count>...`, or `$JS.ACK.<domain>.<account>.` and
    then the same (ADR-15).
    """
    parts = reply.split(b".")
    place = 4 if len(parts) < 11 else 6
    count = parts[place] if len(parts) > place else b""
    return int(count) if count.isdigit() else 1


def sequence(reply: bytes) -> int:
    """Return the stream sequence in JetStream's reply subject, 0 if it holds none."""
    parts = reply.split(b".")
    place = 5 if len(parts) < 11 else 7
    return int(parts[place]) if len(parts) > place and parts[place].isdigit() else 0
