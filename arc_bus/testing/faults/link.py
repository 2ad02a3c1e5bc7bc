"""Link: one connection through a proxy, and the carrying of its bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias

from arc_bus.testing.faults.way import Cut, Way

Rewrite: TypeAlias = Callable[[bytes], bytes]

CHUNK = 64 * 1024
_IN_FLIGHT = 64
"""Chunks that a delayed way holds; then it reads no more, as a long wire would not."""

_NO_LINGER = struct.pack("ii", 1, 0)
_Chunks: TypeAlias = "asyncio.Queue[tuple[float, bytes]]"


def reset(writer: asyncio.StreamWriter) -> None:
    """Break off with a TCP reset, dropping what was not sent yet."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


class Link:
    """A client's connection and the proxy's own to the server, joined."""

    def __init__(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Join the two; `carry` does the work."""
        self._client = client
        self._to_client = to_client
        self._server = server
        self._to_server = to_server
        self._silenced = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def carry(self, up: Way, down: Way, rewrite: Rewrite | None) -> None:
        """Carry both directions until both have ended; `rewrite` is for what the server says."""
        self._tasks = (
            asyncio.create_task(self._pump(self._client, self._to_server, up, None)),
            asyncio.create_task(self._pump(self._server, self._to_client, down, rewrite)),
        )
        try:
            await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Break both connections off."""
        reset(self._to_client)
        reset(self._to_server)
        for task in self._tasks:
            task.cancel()

    def half_close(self) -> None:
        """Let the client hear the end of what the server says, and go on listening to it."""
        self._silenced = True
        if not self._to_client.is_closing():
            with contextlib.suppress(OSError):  # it has gone in this moment: nobody to be told
                self._to_client.write_eof()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
        rewrite: Rewrite | None,
    ) -> None:
        chunks: _Chunks = asyncio.Queue(_IN_FLIGHT)
        taking = asyncio.create_task(self._take(reader, way, rewrite, chunks))
        try:
            await self._give(writer, way, chunks)
        except Cut as cut:
            writer.write(cut.sent)
            self.reset()
        except OSError:  # one side went: the other learns of it in the same way
            self.reset()
        finally:
            taking.cancel()

    async def _take(
        self, reader: asyncio.StreamReader, way: Way, rewrite: Rewrite | None, chunks: _Chunks
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await way.passable()
            try:
                data = await reader.read(CHUNK)
            except OSError:
                self.reset()
                return
            passed = rewrite(data) if rewrite is not None and data else data
            if passed or not data:
                await chunks.put((loop.time() + way.delay, passed))
            if not data:
                return

    async def _give(self, writer: asyncio.StreamWriter, way: Way, chunks: _Chunks) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await chunks.get()
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            await way.passable()
            silenced = self._silenced and writer is self._to_client
            if writer.is_closing() or (silenced and not data):
                return
            if not data:
                writer.write_eof()
                return
            if not silenced:
                await self._say(writer, way, data)

    async def _say(self, writer: asyncio.StreamWriter, way: Way, data: bytes) -> None:
        while data:
            rate = way.rate
            # By twentieths of a second: a chunk at once would be no slow line.
            piece = len(data) if rate is None else max(1, int(rate / 20))
            now, data = data[:piece], data[piece:]
            writer.write(way.shape(now))
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(len(now) / rate)
