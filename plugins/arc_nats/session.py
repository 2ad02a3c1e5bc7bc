"""Session: what the parts of one JetStream transport share while it is connected."""

from __future__ import annotations

from typing import NamedTuple

from arc_nats.api import Api
from arc_nats.client import Connection
from arc_nats.inbox import Inbox
from arc_nats.incoming import Incoming
from arc_nats.options import JetStreamOptions


class Session(NamedTuple):
    """One connection, and everything that stands on it."""

    connection: Connection
    inbox: Inbox
    api: Api
    incoming: Incoming
    options: JetStreamOptions

    @property
    def shown(self) -> str:
        """The route's URL without secrets."""
        return self.connection.address.shown
