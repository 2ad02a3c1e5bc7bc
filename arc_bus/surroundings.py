"""Surroundings: everything outside itself that a subscription calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from arc_bus.message import Message
from arc_bus.notice import Notice
from arc_bus.transport import Outgoing, Transport


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription is given by its bus: everything outside itself that it calls.

    `answer` makes the reply to a request; None where requests are somebody else's to answer.
    """

    service: str
    transport: Transport
    url: str
    publish_dead: Callable[[Outgoing], Awaitable[None]]
    answer: Callable[[Message, object], Outgoing] | None
    report: Callable[[Notice], None]
