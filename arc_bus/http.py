"""A page or two over HTTP/1.1, for probes and scrapers; not for browsers or the open internet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

from arc_bus.errors import ConfigError

LONGEST_REQUEST = 8192
PATIENCE = 5.0
"""Seconds in which a client must send its request and take the answer."""

_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class Page(NamedTuple):
    """An answer: its status, content type and body."""

    status: int
    content_type: str
    body: bytes


Answer: TypeAlias = Callable[[str], Awaitable[Page]]
"""Returns the page at a path, which comes without its query."""

MISSING = Page(404, "text/plain; charset=utf-8", b"no such page\n")


@asynccontextmanager
async def serving(place: str, answer: Answer) -> AsyncGenerator[int]:
    """Serve GET requests at `place` ("host:port", ":port"; port 0 chooses one); give the port.

    Whoever can reach it can read it. Raises ConfigError if `place` is no such thing, or taken.
    """
    host, _, port = place.rpartition(":")
    try:
        server = await asyncio.start_server(
            lambda reader, writer: _serve(reader, writer, answer),
            host.strip("[]") or None,
            int(port),
            limit=LONGEST_REQUEST,
        )
    except (ValueError, OSError, OverflowError) as error:
        raise ConfigError(f"cannot serve at {place!r}, as host:port: {error}") from error
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            request = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = request.partition(b" ")
            path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
            found = await answer(path) if method == b"GET" else MISSING
            head = (
                f"HTTP/1.1 {found.status} {_REASONS[found.status]}\r\n"
                f"Content-Type: {found.content_type}\r\n"
                f"Content-Length: {len(found.body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + found.body)
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # a client that hangs up, is too slow or speaks something else gets no answer
    finally:
        writer.close()
