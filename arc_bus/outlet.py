"""Outlet: a destination compiled once for all that is published to it, and what it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from arc_bus.middleware import Sender
from arc_bus.transport import Outgoing, Transport
from arc_bus.wire import Codec, Facts

if TYPE_CHECKING:
    from arc_bus.contracts.registry import Contract


class Attached(msgspec.Struct, frozen=True, eq=False):
    """A route as it is served: the transport, its redacted URL, and the codec to publish in."""

    transport: Transport
    url: str
    codec: Codec


class Outlet(msgspec.Struct, eq=False):
    """One destination, compiled: where it goes and how its payloads are put into bytes.

    `special` says that its messages have a contract, or further headers, a topic's or the codec's.
    `encode` and `splice` are the codec's. `bare` is the transport's own publish where no middleware
    stands before it, else None.
    """

    destination: str
    attached: Attached
    contract: Contract | None
    event_type: str | None
    headers: Mapping[str, str]
    topic: bool
    special: bool
    encode: Callable[[object], bytes]
    splice: Callable[[Facts, bytes], bytes]
    bare: Callable[[Outgoing], Awaitable[None]] | None
    publish: Sender


class Kind(msgspec.Struct, frozen=True):
    """What there is to know of a payload type, looked up once.

    `plain`: its objects are encoded as they are, since they can hold no envelope fields.
    """

    plain: bool
    may_overlap: bool
    event_type: str | None
