"""Proxy: a TCP proxy on this machine that delays, freezes, throttles, cuts and garbles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from arc_bus.errors import ConfigError
from arc_bus.testing.faults.link import CHUNK, Link, reset
from arc_bus.testing.faults.readdress import Readdress
from arc_bus.testing.faults.way import Way


class Proxy:
    """Stands between clients and one server; `up` is the way to the server, `down` the way back.

    `async with Proxy(server.url) as proxy:` listens on a free port; clients connect to
    `proxy.url`, which is the server's with that port. `changed` is called whenever a connection has
    come or gone, whoever ended it. TLS passes through as it is. With
    `lookups=True` the addresses in Pulsar's lookup answers lead through the proxy, too: without it
    a Pulsar client asks through the proxy once and then goes to the broker directly.

    NATS servers of a cluster announce each other's addresses as well (`connect_urls`): give each
    its own proxy and the client that list of them, and set `no_advertise` on the servers.
    """

    def __init__(self, url: str, *, lookups: bool = False) -> None:
        """Lead to the host and port of `url`. Raises ConfigError if it has none."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            raise ConfigError(f"proxy to {url!r}: a URL with host and port is needed")
        self.up = Way()
        self.down = Way()
        self.accepted = 0
        self.changed: Callable[[], None] = lambda: None
        self._target = (parts.hostname, parts.port)
        self._url = url
        self._lookups = lookups
        self._links: set[Link] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._refusing = False

    @property
    def port(self) -> int:
        """The port where it listens."""
        assert self._server is not None, "it listens inside `async with`"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The server's URL, leading through the proxy."""
        host, port = self._target
        return self._url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}", 1)

    @property
    def connections(self) -> int:
        """How many connections it carries now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more, and reset what is open."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def reset(self) -> None:
        """Break every connection off with a TCP reset, on both sides, dropping what is underway."""
        for link in tuple(self._links):
            link.reset()

    def half_close(self) -> None:
        """Tell the clients that the server will say no more (FIN), and go on listening to them."""
        for link in tuple(self._links):
            link.half_close()

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections at once, until `refuse(False)`; those that are open stay."""
        self._refusing = refusing

    def freeze(self) -> None:
        """Be a black hole both ways: connections stay open and nothing comes through."""
        self.up.freeze()
        self.down.freeze()

    def heal(self) -> None:
        """Carry everything as it is, and take every connection, from now on."""
        self.up.heal()
        self.down.heal()
        self.refuse(False)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.changed()
        task = asyncio.create_task(self._carry(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            reset(writer)
            return
        try:
            target, back = await asyncio.open_connection(*self._target, limit=CHUNK)
        except OSError:
            reset(writer)  # the server is not there: neither is its proxy
            return
        link = Link(reader, writer, target, back)
        rewrite = Readdress(self._target, self.port).rewrite if self._lookups else None
        self._links.add(link)
        try:
            await link.carry(self.up, self.down, rewrite)
        finally:
            self._links.discard(link)
            self.changed()
            back.close()
            writer.close()
