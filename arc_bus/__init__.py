"""arc_bus: one bus API over NATS, JetStream, Apache Pulsar and memory.

Services publish and subscribe to subjects and topics; a prefix table routes each to a transport
plugin. The same handler, retry policy, dead letters, ordering and shutdown mean the same on every
transport, and what a route cannot keep it refuses at start. Start with `Bus`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.check import Check
    from arc_bus.config import Config, Route
    from arc_bus.consumer import StopReport
    from arc_bus.deadletter import DeadLetter, DeadLetters
    from arc_bus.envelope import Envelope
    from arc_bus.errors import ArcBusError, Reject, RemoteError
    from arc_bus.handler import scoped
    from arc_bus.hookspecs import hookimpl
    from arc_bus.message import Message
    from arc_bus.notice import Notice, NoticeKind
    from arc_bus.policy import Breaker, Dedup, DedupStore, Overflow, Retry, Subscription
    from arc_bus.router import Router
    from arc_bus.routing import token
    from arc_bus.secret import Secret
    from arc_bus.subscribing import Handle
    from arc_bus.transport import Capabilities, Guarantee, StartAt

__all__ = [
    "ArcBusError",
    "Breaker",
    "Bus",
    "Capabilities",
    "Check",
    "Config",
    "DeadLetter",
    "DeadLetters",
    "Dedup",
    "DedupStore",
    "Envelope",
    "Guarantee",
    "Handle",
    "Message",
    "Notice",
    "NoticeKind",
    "Overflow",
    "Reject",
    "RemoteError",
    "Retry",
    "Route",
    "Router",
    "Secret",
    "StartAt",
    "StopReport",
    "Subscription",
    "hookimpl",
    "scoped",
    "token",
]

# Names are imported when first asked for (PEP 562): asyncio and msgspec alone take longer than a
# plugin's hooks, or the command line, need of this package. Tests and type checkers hold this list,
# the one above and the imports together.
_HOMES = {
    "ArcBusError": "errors",
    "Breaker": "policy",
    "Bus": "bus",
    "Capabilities": "transport",
    "Check": "check",
    "Config": "config",
    "DeadLetter": "deadletter",
    "DeadLetters": "deadletter",
    "Dedup": "policy",
    "DedupStore": "policy",
    "Envelope": "envelope",
    "Guarantee": "transport",
    "Handle": "subscribing",
    "Message": "message",
    "Notice": "notice",
    "NoticeKind": "notice",
    "Overflow": "policy",
    "Reject": "errors",
    "RemoteError": "errors",
    "Retry": "policy",
    "Route": "config",
    "Router": "router",
    "Secret": "secret",
    "StartAt": "transport",
    "StopReport": "consumer",
    "Subscription": "policy",
    "hookimpl": "hookspecs",
    "scoped": "handler",
    "token": "routing",
}


def __getattr__(name: str) -> object:
    """Return a public name, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
