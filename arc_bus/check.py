"""Check: the answer of a health check or a start-up diagnosis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, whether it is well, what was found, and what mends it.

    `facts` are the numbers behind `detail`, by name, as they can be written in JSON.
    """

    name: str
    ok: bool
    detail: str = ""
    remedy: str = ""
    facts: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])


HealthCheck: TypeAlias = Callable[[], Awaitable[Check]]
"""Makes one round trip and says how it went; must not raise and should end within 5 s."""
