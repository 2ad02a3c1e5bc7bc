"""Inbox: where the replies to one request arrive."""

from __future__ import annotations

import asyncio

from arc_bus.errors import BusStopped
from arc_bus.transport import Delivery


class Inbox:
    """Collects up to `most` replies for at most `timeout` seconds."""

    __slots__ = ("_done", "_most", "_replies", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, most: int) -> None:
        self._most = most
        self._replies: list[Delivery] = []
        self._done: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_later(timeout, self._finish)

    def put(self, reply: Delivery) -> None:
        """Take one reply, unless there are enough."""
        if len(self._replies) < self._most:
            self._replies.append(reply)
        if len(self._replies) >= self._most:
            self._finish()

    def fail(self) -> None:
        """End the wait with BusStopped."""
        if not self._done.done():
            self._done.set_exception(BusStopped("the transport stopped before the reply came"))

    async def collect(self) -> list[Delivery]:
        """Return the replies once there are enough of them, or the time is over."""
        await self._done
        return self._replies

    def close(self) -> None:
        """Stop the clock."""
        self._timer.cancel()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
