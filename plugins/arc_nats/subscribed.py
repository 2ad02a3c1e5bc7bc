"""Subscribed: a subscription as it is said to every server that we connect to."""

from __future__ import annotations

from typing import NamedTuple

from arc_nats.parser import Sink


class Subscribed(NamedTuple):
    """A subscription as it is said to every server that we connect to."""

    subject: bytes
    group: bytes | None
    sink: Sink

    def line(self) -> bytes:
        """Return it in the protocol's words."""
        if self.group is None:
            return b"SUB %b %b\r\n" % (self.subject, self.sink.sid)
        return b"SUB %b %b %b\r\n" % (self.subject, self.group, self.sink.sid)
