"""Log: what is kept for groups that start at EARLIEST."""

from __future__ import annotations

import pytest

from arc_bus.transport import Outgoing
from arc_inmemory.log import Log
from arc_inmemory.stored import OVERHEAD, store

pytestmark = pytest.mark.virtual_time


def outgoing(subject: str = "a.b", body: bytes = b"", **more: str) -> Outgoing:
    return Outgoing(subject, body, {}, more.get("id", ""), more.get("key"))


async def test_the_log_forgets_the_oldest_first() -> None:
    log = Log(3 * OVERHEAD)
    for number in range(10):
        log.append(store(number, outgoing("a.x" if number % 2 else "a.y"), None))
    assert [message.number for message in log.matching("a.*")] == [7, 8, 9]
    assert [message.number for message in log.matching("a.x")] == [7, 9]
