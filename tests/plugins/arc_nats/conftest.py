"""Transports on the real server, and the means to say things to it that no client would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from arc_bus.notice import Notice, NoticeKind
from arc_bus.servers import NatsServer
from arc_bus.transport import Delivery, Endpoint
from arc_nats.core import CoreTransport
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import JetStreamOptions, NatsOptions


class Received:
    """What a subscription got; `wait(n)` returns when there are `n`."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.batches = 0
        self._changed = asyncio.Event()

    def __call__(self, batch: list[Delivery]) -> None:
        self.batches += 1
        self.deliveries += batch
        self._changed.set()

    async def wait(self, count: int, timeout: float = 10.0) -> list[Delivery]:
        async with asyncio.timeout(timeout):
            while len(self.deliveries) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.deliveries

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]


class Notices:
    """What a transport reported; `wait(kind)` returns the next of that kind."""

    def __init__(self) -> None:
        self.all: list[Notice] = []
        self._seen = 0
        self._changed = asyncio.Event()

    def __call__(self, notice: Notice) -> None:
        self.all.append(notice)
        self._changed.set()

    async def wait(self, kind: NoticeKind, timeout: float = 10.0) -> Notice:
        async with asyncio.timeout(timeout):
            while True:
                while self._seen < len(self.all):
                    self._seen += 1
                    if self.all[self._seen - 1].kind is kind:
                        return self.all[self._seen - 1]
                self._changed.clear()
                await self._changed.wait()

    def of(self, kind: NoticeKind) -> list[Notice]:
        return [notice for notice in self.all if notice.kind is kind]


@pytest.fixture
def received() -> Callable[[], Received]:
    """A maker of things to deliver to."""
    return Received


@pytest.fixture
def notices() -> Notices:
    """Something to report to."""
    return Notices()


class CoreMaker(Protocol):
    async def __call__(
        self,
        url: str | None = None,
        options: NatsOptions | None = None,
        report: Callable[[Notice], None] = ...,
    ) -> CoreTransport: ...


class StreamMaker(Protocol):
    async def __call__(
        self,
        stream: str,
        *prefixes: str,
        url: str | None = None,
        options: JetStreamOptions | None = None,
        report: Callable[[Notice], None] = ...,
        query: str = "",
    ) -> JetStreamTransport: ...


@pytest.fixture
async def core(nats_server: NatsServer) -> AsyncIterator[CoreMaker]:
    """A maker of started core transports, stopped at the end."""
    made: list[CoreTransport] = []

    async def make(
        url: str | None = None,
        options: NatsOptions | None = None,
        report: Callable[[Notice], None] = lambda _: None,
    ) -> CoreTransport:
        transport = CoreTransport(
            Endpoint(url=url or nats_server.url, options=options, report=report)
        )
        await transport.start()
        made.append(transport)
        return transport

    yield make
    for transport in made:
        await transport.stop()


@pytest.fixture
async def streaming(nats_server: NatsServer) -> AsyncIterator[StreamMaker]:
    """A maker of started JetStream transports, stopped at the end."""
    made: list[JetStreamTransport] = []

    async def make(
        stream: str,
        *prefixes: str,
        url: str | None = None,
        options: JetStreamOptions | None = None,
        report: Callable[[Notice], None] = lambda _: None,
        query: str = "",
    ) -> JetStreamTransport:
        transport = JetStreamTransport(
            Endpoint(
                url=jetstream_url(url or nats_server.url, stream, query),
                options=options,
                prefixes=prefixes,
                report=report,
            )
        )
        await transport.start()
        made.append(transport)
        return transport

    yield make
    for transport in made:
        await transport.stop()


def jetstream_url(url: str, stream: str, query: str = "") -> str:
    return f"{url.replace('nats://', 'nats+jetstream://')}/{stream}{query}"


class Raw:
    """A client that says to the server whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @staticmethod
    def hpub(subject: bytes, block: bytes, body: bytes = b"") -> bytes:
        sizes = b"%d %d" % (len(block), len(block) + len(body))
        return b"HPUB %b %b\r\n%b%b\r\n" % (subject, sizes, block, body)

    @staticmethod
    def pub(subject: bytes, body: bytes = b"") -> bytes:
        return b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body)

    async def say(self, *frames: bytes) -> None:
        """Send, and wait until the server has dealt with it."""
        self.writer.write(b"".join(frames) + b"PING\r\n")
        await self.writer.drain()
        async with asyncio.timeout(5):
            while (line := await self.reader.readline()) != b"PONG\r\n":
                assert line, "the server closed the connection"


@pytest.fixture
async def raw(nats_server: NatsServer) -> AsyncIterator[Raw]:
    """A raw connection to the shared server."""
    async with raw_client(nats_server) as client:
        yield client


@contextlib.asynccontextmanager
async def raw_client(server: NatsServer) -> AsyncGenerator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        await reader.readline()
        hello = json.dumps({"verbose": False, "headers": True, "lang": "raw", "version": "0"})
        writer.write(f"CONNECT {hello}\r\n".encode())
        yield Raw(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def freeze() -> AsyncIterator[Callable[[NatsServer], Awaitable[None]]]:
    """Freeze a server, surely: a signal takes its time. It goes on at the end of the test."""
    frozen: list[NatsServer] = []

    async def stop(server: NatsServer) -> None:
        server.pause()
        frozen.append(server)
        await asyncio.to_thread(_until_frozen, server)

    yield stop
    for server in frozen:
        if server.alive:
            server.resume()


def _until_frozen(server: NatsServer) -> None:
    state = Path(f"/proc/{server.pid}/stat")
    deadline = time.monotonic() + 5
    while state.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the server does not stop"
        time.sleep(0.002)


class Fake:
    """Speaks just enough of the protocol to be connected to; keeps everything it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.kicks = 0  # connections yet to be ended right behind their handshake
        self.url = ""
        self.info = b'{"server_id":"F","version":"2.15.0","headers":true,"max_payload":1048576}'
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(b"INFO " + self.info + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.heard += line
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                    if self.kicks:
                        self.kicks -= 1
                        break
        writer.close()

    def say(self, data: bytes) -> None:
        self._writers[-1].write(data)

    def deafen(self) -> None:
        """Read nothing more of the present connection."""
        self._writers[-1].transport.pause_reading()  # type: ignore[attr-defined]

    def leave(self) -> None:
        for writer in self._writers:
            writer.close()

    def hang_up(self) -> None:
        self._writers[-1].close()


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    """A server that says what it is told to."""
    fake = Fake()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    try:
        fake.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake
    finally:
        server.close()
        fake.leave()


@pytest.fixture
def dice(record_property: Callable[[str, object], None]) -> random.Random:
    """Chance, with its seed in the report."""
    seed = random.randrange(2**32)
    record_property("seed", seed)
    return random.Random(seed)
