"""Proxy: each fault does what it says, to the direction it is for, and ends when it is healed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from arc_bus import Bus, Message
from arc_bus.errors import ConfigError
from arc_bus.servers import PulsarServer
from arc_bus.testing import Proxy
from arc_bus.testing.faults.readdress import Readdress
from arc_bus.testing.faults.way import Cut, Way

SOON = 10.0


class Peer:
    """The server behind the proxy: keeps what it hears, says what it is told to."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.port = 0
        self.writer: asyncio.StreamWriter | None = None
        self.ended: BaseException | str | None = None
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.changed.set()
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                self.changed.set()
            self.ended = "end"
        except ConnectionError as error:
            self.ended = error
        self.changed.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not reached():
                self.changed.clear()
                await self.changed.wait()

    def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    yield peer
    server.close()
    if peer.writer is not None:
        peer.writer.close()


@pytest.fixture
async def proxy(peer: Peer) -> AsyncIterator[Proxy]:
    async with Proxy(f"tcp://127.0.0.1:{peer.port}") as proxy:
        yield proxy


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(SOON):
            return await self.reader.readexactly(count)


@pytest.fixture
async def client(proxy: Proxy, peer: Peer) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await peer.until(lambda: peer.writer is not None)
    yield Client(reader, writer)
    writer.close()


async def test_what_is_said_goes_both_ways_unchanged(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    much = os.urandom(1 << 20)
    client.writer.write(much)
    await peer.until(lambda: len(peer.heard) == len(much))
    peer.say(much)
    assert peer.heard == much == await client.hear(len(much))
    assert (proxy.up.carried, proxy.down.carried) == (len(much), len(much))
    assert proxy.url == f"tcp://127.0.0.1:{proxy.port}"


async def test_an_end_is_passed_on_and_the_answer_still_comes(client: Client, peer: Peer) -> None:
    client.writer.write(b"question")
    client.writer.write_eof()
    await peer.until(lambda: peer.ended == "end")
    peer.say(b"answer" * 50_000)
    assert peer.writer is not None
    peer.writer.close()
    assert await client.hear(300_000) == b"answer" * 50_000
    assert await client.reader.read() == b""


async def test_one_direction_is_frozen_and_loses_nothing(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    proxy.down.freeze()
    peer.say(b"held")
    client.writer.write(b"heard")
    await peer.until(lambda: bytes(peer.heard) == b"heard")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.reader.read(1)
    proxy.down.thaw()
    assert await client.hear(4) == b"held"


async def test_a_frozen_proxy_fills_the_senders_buffers(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    proxy.freeze()
    client.writer.write(bytes(64 << 20))
    assert client.writer.transport.get_write_buffer_size() > 0
    proxy.heal()
    await peer.until(lambda: len(peer.heard) == 64 << 20)


async def test_a_delay_holds_back_and_keeps_the_order(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    loop = asyncio.get_running_loop()
    proxy.up.delay = 0.2
    began = loop.time()
    for number in range(20):
        client.writer.write(b"%d," % number)
        await asyncio.sleep(0)
    await peer.until(lambda: peer.heard.endswith(b"19,"))
    assert loop.time() - began >= 0.2
    assert peer.heard == b"".join(b"%d," % number for number in range(20))


async def test_a_rate_bounds_the_bytes_of_a_second(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    loop = asyncio.get_running_loop()
    proxy.up.rate = 100_000
    began = loop.time()
    client.writer.write(bytes(30_000))
    await peer.until(lambda: len(peer.heard) == 30_000)
    assert loop.time() - began >= 0.25


async def test_a_reset_reaches_both_sides(client: Client, peer: Peer, proxy: Proxy) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await client.hear(1)
    await peer.until(lambda: isinstance(peer.ended, ConnectionResetError))


@pytest.mark.parametrize("count", [0, 1, 70_000])
async def test_it_is_cut_at_the_byte_that_was_named(
    client: Client, peer: Peer, proxy: Proxy, count: int
) -> None:
    proxy.up.cut_after(count)
    client.writer.write(bytes(100_000))
    await peer.until(lambda: peer.ended is not None)
    assert isinstance(peer.ended, ConnectionResetError)
    assert proxy.up.carried == count


async def test_a_bit_is_flipped_where_it_was_planned(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    proxy.up.flip(2, bit=1)
    proxy.up.flip(5)
    client.writer.write(b"\x00\x00\x00")
    await peer.until(lambda: len(peer.heard) == 3)
    client.writer.write(b"\x00\x00\x00\x00")
    await peer.until(lambda: len(peer.heard) == 7)
    assert peer.heard == b"\x00\x00\x02\x00\x00\x01\x00"


async def test_a_half_closed_client_hears_the_end_and_is_still_heard(
    client: Client, peer: Peer, proxy: Proxy
) -> None:
    proxy.half_close()
    assert await client.reader.read() == b""
    peer.say(b"never")
    client.writer.write(b"still here")
    await peer.until(lambda: bytes(peer.heard) == b"still here")


async def test_connections_are_refused_until_it_is_healed(proxy: Proxy, peer: Peer) -> None:
    proxy.refuse()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(SOON):
            await reader.read(1)
    writer.close()
    proxy.heal()
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await peer.until(lambda: peer.writer is not None)
    assert (proxy.accepted, proxy.connections) == (2, 1)
    writer.close()


async def test_without_a_server_there_is_no_proxy_either() -> None:
    gone = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    async with Proxy(f"tcp://127.0.0.1:{port}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(SOON):
                await reader.read(1)
        writer.close()


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ConfigError, match="host and port"):
        Proxy("nats://localhost")
    with pytest.raises(ConfigError, match="cut_after"):
        Way().cut_after(-1)
    with pytest.raises(ConfigError, match="flip"):
        Way().flip(0, bit=8)
    with pytest.raises(ConfigError, match="of one length"):
        Readdress(("127.0.0.1", 665), 45_000)


def test_a_cut_and_a_flip_are_forgotten_when_healed() -> None:
    way = Way()
    way.cut_after(0)
    way.flip(0)
    way.heal()
    assert way.shape(b"a") == b"a"
    way.cut_after(0)
    with pytest.raises(Cut):
        way.shape(b"a")
    assert way.shape(b"b") == b"b", "a cut happens once"


def test_only_lookup_answers_are_readdressed_however_they_are_cut() -> None:
    def frame(kind: int, text: bytes) -> bytes:
        command = bytes((8, kind)) + text
        size = len(command).to_bytes(4, "big")
        return (len(command) + 4).to_bytes(4, "big") + size + command

    lookup, message = frame(24, b"pulsar://127.0.0.1:16650"), frame(9, b"x 127.0.0.1:16650")
    stream = lookup + message + lookup
    expected = stream.replace(lookup, frame(24, b"pulsar://127.0.0.1:45000"))
    for piece in (1, 7, len(stream)):
        readdress = Readdress(("127.0.0.1", 16650), 45_000)
        pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
        assert b"".join(map(readdress.rewrite, pieces)) == expected


async def test_a_pulsar_client_stays_on_the_proxy_and_survives_a_reset(
    real_pulsar_server: PulsarServer,
    unique: Callable[..., str],
    until: Callable[..., Awaitable[None]],
) -> None:
    topic = f"persistent://arc/test/{unique('proxied')}"
    seen: list[int] = []
    async with Proxy(real_pulsar_server.url, lookups=True) as proxy:
        bus = Bus("proxied", routes={"persistent://": proxy.url})

        @bus.subscribe(topic, group="g")
        async def handle(order: dict[str, int], message: Message) -> None:
            seen.append(order["number"])

        async with bus:
            await bus.publish(topic, {"number": 1})
            await until(lambda: 1 in seen, 30.0)
            # The client's connections are all here: nothing arrives while it is frozen.
            proxy.down.freeze()
            sending = asyncio.create_task(bus.publish(topic, {"number": 2}))
            await asyncio.sleep(0.2)
            assert not sending.done()
            proxy.down.thaw()
            await sending
            before = proxy.accepted
            proxy.reset()
            await bus.publish(topic, {"number": 3})
            await until(lambda: {1, 2, 3} <= set(seen), 30.0)
            assert proxy.accepted > before
