"""Log: what is kept for groups that start at EARLIEST."""

from __future__ import annotations

import pytest

from arc_bus.transport import Outgoing
from arc_inmemory.log import Log
from arc_inmemory.stored import OVERHEAD, Shelf

pytestmark = pytest.mark.virtual_time


def outgoing(subject: str = "a.b", body: bytes = b"", **more: str) -> Outgoing:
    return Outgoing(subject, body, {}, more.get("id", ""), more.get("key"))


async def test_the_log_forgets_the_oldest_first() -> None:
    log, shelf = Log(3 * OVERHEAD), Shelf()
    for number in range(1, 11):
        log.append(shelf.store(outgoing("a.x" if number % 2 else "a.y")))
    assert [message.number for message in log.matching("a.*")] == [8, 9, 10]
    assert [message.number for message in log.matching("a.x")] == [9]


def test_equal_headers_in_a_row_share_one_read_only_mapping() -> None:
    shelf = Shelf()
    given = {"a": "1"}
    first, second = (shelf.store(Outgoing("a.b", b"", given, "")) for _ in range(2))
    given["a"] = "2"
    third = shelf.store(Outgoing("a.b", b"", given, ""))
    assert first.headers is second.headers
    assert (dict(first.headers), dict(third.headers)) == ({"a": "1"}, {"a": "2"})
    with pytest.raises(TypeError):
        first.headers["a"] = "3"  # type: ignore[index]
