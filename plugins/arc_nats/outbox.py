"""Outbox: what is to be written, joined once a turn of the event loop, with back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from typing import Final

from arc_bus.errors import BusStopped, ConnectionLost

PING: Final = b"PING\r\n"
TURN: Final = 64 * 1024
"""Bytes after which a publisher that never suspends is made to: reading needs its turn as well."""


@lru_cache(maxsize=4096)
def sizes(heading: int, whole: int) -> bytes:
    """Return the end of a message's line, remembered: most messages are as large as another."""
    return b"%d %d\r\n" % (heading, whole)


class Outbox:
    """Whole protocol frames on their way; outlives the connections that carry them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, shown: str) -> None:
        """Hold up to `limit` bytes while there is no connection to `shown`."""
        self.size = 0
        self._loop = loop
        self._limit = limit
        self._shown = shown
        self._frames: list[bytes] = []
        self._scheduled = False
        self._urgent_once = True
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def attached(self) -> bool:
        """Whether there is a connection to write to."""
        return self._transport is not None

    def attach(self, transport: asyncio.Transport) -> None:
        """Write to `transport` from now on, beginning with what has waited."""
        transport.set_write_buffer_limits(high=min(self._limit, 1024 * 1024))
        self._transport = transport
        self._paused = False
        self.flush()
        self._wake()

    def detach(self) -> int:
        """Keep what comes until the next `attach`; return the bytes that nobody can recall now.

        But no PING: its answer would be taken for that of the next connection's first question.
        """
        transport, self._transport = self._transport, None
        frames = self._frames
        self._frames = [frame for frame in frames if frame is not PING]
        self.size -= len(PING) * (len(frames) - len(self._frames))
        self._paused = False
        self._wake()
        return transport.get_write_buffer_size() if transport is not None else 0

    def close(self) -> None:
        """Refuse everything from now on; who waits is told so."""
        self._closed = True
        self.detach()
        self._frames = []
        self.size = 0

    def send(self, frame: bytes) -> None:
        """Add one or more whole frames; they are written at the end of this turn at the latest."""
        self._frames.append(frame)
        self.size += len(frame)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._end_of_turn)

    def send_urgent(self, frame: bytes) -> None:
        """Add a frame that somebody waits for; a lone one is written at once.

        Lone is the first since data came in, or since a turn's frames were written together: more
        of them before that are a burst, which is cheaper in one write. No turn of the loop is asked
        for to tell one from the other; that would cost a lone frame a system call.
        """
        if self._urgent_once and not self._frames and self._transport and not self._paused:
            self._urgent_once = False
            self._transport.write(frame)
        else:
            self.send(frame)

    def hear(self) -> None:
        """Note that data came in: what is sent next may be the answer to it."""
        self._urgent_once = True

    def _end_of_turn(self) -> None:
        self._scheduled = False
        self._urgent_once = True
        self.flush()

    def flush(self) -> None:
        """Hand everything to the socket now, unless it has more than it can take already."""
        if self._frames and self._transport is not None and not self._paused:
            frames, self._frames = self._frames, []
            self.size = 0
            self._transport.write(b"".join(frames) if len(frames) > 1 else frames[0])

    def pause(self) -> None:
        """Stop writing: the socket is full."""
        self._paused = True

    def resume(self) -> None:
        """Go on writing."""
        self._paused = False
        self.flush()
        self._wake()

    async def room(self) -> None:
        """Return when another frame may be added; waiters go in order.

        Raises ConnectionLost while disconnected with the limit reached, and BusStopped.
        """
        while True:
            if self._closed:
                raise BusStopped(f"the connection to {self._shown} is closed")
            if self._transport is None:
                if self.size < self._limit:
                    return
                raise ConnectionLost(
                    f"no connection to {self._shown}, and {self.size} bytes wait for it already;"
                    " raise buffer_bytes, or publish again when it is back"
                )
            self.flush()
            if not self._paused:
                await asyncio.sleep(0)
                if self.size <= TURN:
                    return
                continue
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
