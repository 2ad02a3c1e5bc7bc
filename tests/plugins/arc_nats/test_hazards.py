"""The hazards of the client library, by their numbers in the project's list of 25, each handled.

1 deaf subscriber, 2 cross-delivery, 3 TLS downgrade, 4 publishes that never resolve, 5 ambiguous
publish, 10 black-holed peer, 11 closed for good, 12 flush that is no barrier, 13 swallowed
cancellation, 15 memory, 16 poison, 17 pull requests. 6 and 21, misconfigured and drifted streams
and consumers, are in test_jetstream.py; header and size checks in test_headers.py, test_core.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConnectFailed,
    ConnectionLost,
    PayloadTooLarge,
    PublishRejected,
    TransportError,
)
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Endpoint, Outgoing, StartAt
from arc_nats.consumers import durable_name
from arc_nats.core import CoreTransport
from arc_nats.options import JetStreamOptions, NatsOptions
from arc_nats.parser import Frame

if TYPE_CHECKING:
    from arc_nats.jetstream import JetStreamTransport
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Notices,
        Raw,
        Received,
        StreamMaker,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]
Say = Callable[[bytes], Awaitable[None]]

BLOCKS = [b"X", b"NATS/1.0", b"NATS/1.0 \xff\r\n\r\n", b"NATS/1.0\r\na: \xff\r\n\r\n", b"\r\n\r\n"]
SUBJECTS = [b"\xff\xfe", b"a\x0b2", b"a\x0c7", b"a\x00b", b"a\x7f", b"a\xc2\x85b"]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{hash(body)}")


@pytest.fixture
def dice(record_property: Callable[[str, object], None]) -> random.Random:
    """Chance, with its seed in the report."""
    seed = random.randrange(2**32)
    record_property("seed", seed)
    return random.Random(seed)


async def until(reached: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Ask until it is so, for what nobody tells who waits."""
    async with asyncio.timeout(timeout):
        while not await reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# A server that says what it is told to


class Fake:
    """Speaks just enough of the protocol to be connected to; keeps everything it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.info = b'{"server_id":"F","version":"2.15.0","headers":true,"max_payload":1048576}'
        self.after_connect: Say | None = None
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
        writer.close()

    def say(self, data: bytes) -> None:
        self._writers[-1].write(data)

    def hang_up(self) -> None:
        self._writers[-1].close()


@contextlib.asynccontextmanager
async def fake_server() -> AsyncGenerator[tuple[Fake, str]]:
    fake = Fake()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    try:
        yield fake, f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in fake._writers:
            writer.close()


# 1


@pytest.mark.parametrize("block", BLOCKS)
async def test_hazard_01_a_malformed_header_block_deafens_nobody(
    core: CoreMaker,
    unique: Unique,
    raw: Raw,
    notices: Notices,
    received: Callable[[], Received],
    block: bytes,
) -> None:
    transport, got, subject = await core(report=notices), received(), unique()
    await transport.subscribe(Subscription(pattern=subject), got)
    name = subject.encode()
    await raw.say(raw.hpub(name, block, b"bad"), raw.pub(name, b"good"))
    await got.wait(1, timeout=1.0)
    assert got.bodies == [b"good"]
    dropped = await notices.wait(NoticeKind.DROPPED)
    assert (dropped.count, dropped.pattern) == (1, subject)
    assert not notices.of(NoticeKind.LOST)


@pytest.mark.parametrize("tail", SUBJECTS)
async def test_hazard_01_a_subject_that_is_no_text_deafens_nobody(
    core: CoreMaker,
    unique: Unique,
    raw: Raw,
    notices: Notices,
    received: Callable[[], Received],
    tail: bytes,
) -> None:
    transport, got, subject = await core(report=notices), received(), unique()
    await transport.subscribe(Subscription(pattern=f"{subject}.>"), got)
    name = subject.encode()
    await raw.say(raw.pub(name + b"." + tail, b"bad"), raw.pub(name + b".a", b"good"))
    await got.wait(1, timeout=1.0)
    assert got.bodies == [b"good"]
    assert (await notices.wait(NoticeKind.DROPPED)).count == 1


async def test_hazard_01_a_reply_subject_that_is_no_text_deafens_nobody(
    core: CoreMaker, unique: Unique, raw: Raw, received: Callable[[], Received]
) -> None:
    transport, got, subject = await core(), received(), unique()
    await transport.subscribe(Subscription(pattern=subject), got)
    name = subject.encode()
    await raw.say(b"PUB %b r\xff 3\r\nbad\r\n" % name, raw.pub(name, b"good"))
    await got.wait(1, timeout=1.0)
    assert got.bodies == [b"good"]


async def test_hazard_01_a_late_pong_and_a_raising_observer_change_nothing(
    core: CoreMaker, unique: Unique, freeze: Freeze, received: Callable[[], Received]
) -> None:
    def observer(_notice: Notice) -> None:
        raise RuntimeError("an observer of bad manners")

    with servers.nats_server(jetstream=False) as server:
        transport = await core(server.url, NatsOptions(flush_timeout=0.2), observer)
        got, subject = received(), unique()
        await transport.subscribe(Subscription(pattern=subject), got)
        await freeze(server)
        with pytest.raises(ConnectionLost):
            await transport.flush()
        server.resume()
        await transport.flush()
        await transport.publish(message(subject))
        await got.wait(1, timeout=1.0)


async def test_hazard_01_errors_without_text_and_unknown_info_end_nothing(
    core: CoreMaker, notices: Notices
) -> None:
    async with fake_server() as (fake, url):
        transport = await core(url, report=notices)
        fake.say(b'-ERR\r\nINFO {nonsense\r\nINFO {"connect_urls":["a b"]}\r\n+OK\r\n')
        await transport.flush()
        assert fake.connections == 1
        assert len(notices.of(NoticeKind.ERROR)) == 3


async def test_hazard_01_ten_thousand_hostile_messages_lose_no_good_one(
    core: CoreMaker,
    unique: Unique,
    raw: Raw,
    notices: Notices,
    received: Callable[[], Received],
    dice: random.Random,
) -> None:
    transport, got, subject = await core(report=notices), received(), unique()
    await transport.subscribe(Subscription(pattern=f"{subject}.>"), got)
    name = subject.encode()

    def noise(most: int) -> bytes:
        return dice.randbytes(dice.randrange(1, most))

    def token() -> bytes:
        return bytes(byte for byte in noise(12) if byte not in b" \t\r\n.*>") or b"x"

    for number in range(100):
        burst: list[bytes] = []
        for _ in range(100):
            block = dice.choice([b"NATS/1.0\r\n" + noise(30) + b"\r\n\r\n", noise(30)])
            burst.append(raw.hpub(name + b".h." + token(), block, noise(40)))
        burst.append(raw.pub(name + b".good", b"%d" % number))
        await raw.say(*burst)
    async with asyncio.timeout(10):
        while [d.subject for d in got.deliveries].count(f"{subject}.good") < 100:
            await got.wait(len(got.deliveries) + 1)
    good = [d.body for d in got.deliveries if d.subject == f"{subject}.good"]
    assert good == [b"%d" % number for number in range(100)]
    dropped = sum(notice.count for notice in notices.of(NoticeKind.DROPPED))
    assert dropped + len(got.deliveries) == 10_100
    assert not notices.of(NoticeKind.LOST)


# 2


@pytest.mark.parametrize("blank", [b"\x0b", b"\x0c"])
async def test_hazard_02_nothing_is_delivered_into_another_subscription(
    core: CoreMaker, unique: Unique, raw: Raw, received: Callable[[], Received], blank: bytes
) -> None:
    transport, subject = await core(), unique()
    public, private = received(), received()
    await transport.subscribe(Subscription(pattern=f"{subject}.public.>"), public)
    await transport.subscribe(Subscription(pattern=f"{subject}.private"), private)
    # To a parser for which these separate fields, the subject ends here, and a sid follows.
    for sid in range(6):
        await raw.say(raw.pub(b"%b.public.a%b%d" % (subject.encode(), blank, sid), b"forged"))
    await raw.say(raw.pub(f"{subject}.public.a".encode(), b"good"))
    await public.wait(1)
    assert (public.bodies, private.bodies) == ([b"good"], [])


# 3


@pytest.mark.parametrize("offers", [b"", b',"tls_available":true', b',"tls_required":true'])
async def test_hazard_03_a_server_without_tls_never_sees_the_password(offers: bytes) -> None:
    async with fake_server() as (fake, url):
        fake.info = fake.info[:-1] + offers + b"}"
        for scheme, options in (
            ("tls", NatsOptions(connect_timeout=1.0)),
            ("nats", NatsOptions(connect_timeout=1.0, tls=ssl.create_default_context())),
        ):
            asked = url.replace("nats://", f"{scheme}://user:canary@")
            transport = CoreTransport(Endpoint(url=asked, options=options))
            with pytest.raises(ConnectFailed, match=r"TLS|did not answer|closed"):
                await transport.start()
        assert b"canary" not in fake.heard
        assert b"CONNECT" not in fake.heard


async def test_hazard_03_what_is_said_in_the_clear_before_tls_is_not_taken_for_encrypted() -> None:
    async with fake_server() as (fake, url):
        fake.info = fake.info[:-1] + b',"tls_required":true}\r\nPONG'
        transport = CoreTransport(Endpoint(url=url.replace("nats://", "tls://u:canary@")))
        with pytest.raises(ConnectFailed, match="between INFO and the TLS handshake"):
            await transport.start()
        assert b"canary" not in fake.heard


# 4


async def test_hazard_04_every_publish_ends_in_time_whatever_happens(
    streaming: StreamMaker, unique: Unique
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(
            confirm_timeout=0.3, publish_tries=3, max_bytes=20_000, window=32, reconnect_wait=0.2
        )
        transport = await streaming(name, f"{name}.", url=server.url, options=options)

        async def publish(number: int) -> str:
            body = b"x" * (2_000_000 if number % 50 == 7 else 100)
            try:
                await transport.publish(message(f"{name}.a", body, f"{number}"))
            except PayloadTooLarge:
                return "large"
            except PublishRejected:
                return "rejected"
            except TransportError:
                return "unknown"
            return "stored"

        async with asyncio.timeout(20):
            tasks = [asyncio.create_task(publish(number)) for number in range(400)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(server.kill)
            outcomes = await asyncio.gather(*tasks)
        assert outcomes.count("large") == 8
        window = transport._window
        assert window is not None
        assert not window._waiting
        assert window._slots._value == 32
        await asyncio.to_thread(server.start)
        assert await _publish_until(transport, f"{name}.a") in ("stored", "rejected")


async def _publish_until(transport: JetStreamTransport, subject: str) -> str:
    """Publish until the server gives an answer."""
    async with asyncio.timeout(20):
        while True:
            try:
                await transport.publish(message(subject, b"again"))
            except PublishRejected:
                return "rejected"
            except TransportError:
                continue
            return "stored"


# 5


async def test_hazard_05_nothing_confirmed_is_lost_and_nothing_stored_twice_over_kills(
    streaming: StreamMaker, unique: Unique, dice: random.Random
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(
            confirm_timeout=1.0, publish_tries=20, reconnect_wait=0.2, window=64
        )
        transport = await streaming(name, f"{name}.", url=server.url, options=options)
        confirmed: list[bytes] = []
        ending = asyncio.Event()

        async def publisher(number: int) -> None:
            count = 0
            while not ending.is_set():
                body = b"%d-%d" % (number, count)
                await transport.publish(message(f"{name}.a", body))
                confirmed.append(body)
                count += 1

        tasks = [asyncio.create_task(publisher(number)) for number in range(8)]
        for _ in range(4):
            await asyncio.sleep(dice.uniform(0.05, 0.3))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        seen = len(confirmed)

        async def went_on() -> bool:
            return len(confirmed) >= seen + 50

        await until(went_on)
        ending.set()
        await asyncio.gather(*tasks)
        stored = [delivery.body async for delivery in transport.browse(f"{name}.a")]
        assert len(stored) == len(set(stored))
        assert set(stored) == set(confirmed)


# 10


async def test_hazard_10_a_black_hole_under_load_is_left_within_three_pings(
    core: CoreMaker, unique: Unique, notices: Notices, freeze: Freeze
) -> None:
    with (
        servers.nats_server(jetstream=False) as one,
        servers.nats_server(jetstream=False) as two,
    ):
        interval = 0.4
        options = NatsOptions(ping_interval=interval, reconnect_wait=0.1, connect_timeout=0.3)
        url = f"nats://127.0.0.1:{one.port},127.0.0.1:{two.port}"
        transport, subject = await core(url, options, notices), unique()
        here, there = (one, two) if one.monitor("/connz")["num_connections"] else (two, one)

        async def load() -> None:
            while True:
                try:
                    await transport.publish(message(subject, b"x" * 100_000))
                except ConnectionLost:
                    await asyncio.sleep(0.01)

        loading = asyncio.create_task(load())
        await asyncio.sleep(0)
        await freeze(here)
        began = time.monotonic()
        await notices.wait(NoticeKind.LOST)
        assert time.monotonic() - began < 3 * interval + 0.5
        await notices.wait(NoticeKind.RESTORED)
        assert there.monitor("/connz")["num_connections"] == 1
        loading.cancel()
        await asyncio.wait({loading})


async def test_hazard_10_close_does_not_wait_for_a_frozen_peer(
    core: CoreMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server(jetstream=False) as server:
        transport, subject = await core(server.url, NatsOptions(close_timeout=0.5)), unique()
        await freeze(server)
        publishing = asyncio.create_task(_flood(transport, subject))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await transport.stop()
        assert time.monotonic() - began < 3
        with pytest.raises(ArcBusError):
            await publishing


async def _flood(transport: CoreTransport, subject: str) -> None:
    while True:
        await transport.publish(message(subject, b"x" * 100_000))


# 11


@pytest.mark.parametrize(
    "complaint",
    [
        "User Authentication Expired",
        "Authorization Violation",
        "maximum connections exceeded",
        "Slow Consumer",
        "Stale Connection",
        "Maximum Payload Violation",
        "Unknown Protocol Operation",
    ],
)
async def test_hazard_11_no_complaint_of_the_server_closes_for_good(
    core: CoreMaker, unique: Unique, notices: Notices, complaint: str
) -> None:
    async with fake_server() as (fake, url):
        transport = await core(url, NatsOptions(reconnect_wait=0.1), notices)
        fake.say(f"-ERR '{complaint}'\r\n".encode())
        fake.hang_up()
        assert complaint in (await notices.wait(NoticeKind.LOST)).detail
        await notices.wait(NoticeKind.RESTORED)
        await transport.flush()
        assert fake.connections == 2


async def test_hazard_11_an_outage_of_many_attempts_ends_as_soon_as_the_server_is_back(
    core: CoreMaker, unique: Unique, notices: Notices
) -> None:
    with servers.nats_server(jetstream=False) as server:
        transport = await core(server.url, NatsOptions(reconnect_wait=0.01), notices)
        connection = transport._connection
        assert connection is not None
        attempts = 0
        dial = connection._dial

        async def counted(*args: object) -> object:
            nonlocal attempts
            attempts += 1
            return await dial(*args)  # type: ignore[arg-type]

        connection._dial = counted  # type: ignore[assignment, method-assign]
        await asyncio.to_thread(server.kill)

        async def tried_hard() -> bool:
            return attempts >= 100  # nats-py gives up after 60

        await until(tried_hard)
        await asyncio.to_thread(server.start)
        await notices.wait(NoticeKind.RESTORED)
        await transport.publish(message(unique()))
        await transport.flush()


# 12


async def test_hazard_12_the_barrier_stands_behind_the_data(
    core: CoreMaker, received: Callable[[], Received]
) -> None:
    async with fake_server() as (fake, url):
        transport = await core(url)
        fake.heard = b""
        await transport.publish(message("a", b"first"))
        await transport.flush()
        feed = await transport.subscribe(Subscription(pattern="b"), received())
        await feed.stop()
        words = [
            line.split(b" ")[0]
            for line in fake.heard.split(b"\r\n")
            if line.startswith((b"HPUB", b"PING", b"SUB", b"UNSUB"))
        ]
        assert words == [b"HPUB", b"PING", b"SUB", b"PING", b"UNSUB", b"PING"]


async def test_hazard_12_what_was_received_before_stop_is_delivered(
    core: CoreMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    publisher, reader, subject = await core(), await core(), unique()
    got = received()
    feed = await reader.subscribe(Subscription(pattern=subject), got)
    for _ in range(5000):
        await publisher.publish(message(subject))
    await publisher.flush()
    await feed.stop()
    assert len(got.deliveries) == 5000


# 13 and 15


async def test_hazard_13_15_publishers_wait_in_bounded_memory_and_can_be_cancelled(
    core: CoreMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server(jetstream=False) as server:
        limit = 256 * 1024
        options = NatsOptions(buffer_bytes=limit, close_timeout=0.2)
        transport, subject = await core(server.url, options), unique()
        await freeze(server)
        flooding = [asyncio.create_task(_flood(transport, subject)) for _ in range(20)]
        worst = 0.0
        for _ in range(50):  # the loop lives on meanwhile
            before = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - before)
        connection = transport._connection
        assert connection is not None
        wire = connection._wire
        assert wire is not None
        assert wire.transport is not None
        held = connection.outbox.size + wire.transport.get_write_buffer_size()
        # The limit, what one turn may add to it, and one message of each publisher.
        assert held < limit + 64 * 1024 + 21 * 101_000
        assert not any(task.done() for task in flooding)
        flooding[0].cancel()
        done, _ = await asyncio.wait({flooding[0]}, timeout=1)
        assert flooding[0] in done
        assert flooding[0].cancelled()
        await transport.stop()
        done, pending = await asyncio.wait(flooding[1:], timeout=3)
        assert not pending
        assert {type(task.exception()) for task in done} <= {BusStopped, ConnectionLost}


async def test_hazard_15_nothing_is_kept_without_a_bound_while_disconnected(
    core: CoreMaker, unique: Unique, notices: Notices
) -> None:
    with servers.nats_server(jetstream=False) as server:
        options = NatsOptions(buffer_bytes=200_000, reconnect_wait=0.2)
        transport, subject = await core(server.url, options, notices), unique()
        await asyncio.to_thread(server.kill)
        await notices.wait(NoticeKind.LOST)
        with pytest.raises(ConnectionLost, match="raise buffer_bytes"):
            await _flood(transport, subject)
        connection = transport._connection
        assert connection is not None
        assert connection.outbox.size < 200_000 + 101_000


# 16


async def test_hazard_16_a_malformed_stored_message_is_set_aside_once_and_for_all(
    streaming: StreamMaker,
    unique: Unique,
    raw: Raw,
    notices: Notices,
    received: Callable[[], Received],
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", query="?ack_wait=1", report=notices)
    subject = f"{name}.a".encode()
    await raw.say(
        raw.pub(subject, b"before"),
        # The server itself mends the third of them, in storing it.
        *(raw.hpub(subject, block, b"bad") for block in (*BLOCKS[:2], *BLOCKS[3:])),
        *(raw.pub(subject + tail, b"bad") for tail in SUBJECTS),
        raw.pub(subject, b"after"),
    )
    reading = Subscription(pattern=f"{name}.>", group="g", start=StartAt.EARLIEST)
    feed = await transport.subscribe(reading, got := received())
    feed.grant(20)
    for delivery in await got.wait(2):
        await feed.ack(delivery)
    assert got.bodies == [b"before", b"after"]
    dropped = sum(notice.count for notice in notices.of(NoticeKind.DROPPED))
    assert dropped == len(BLOCKS) - 1 + len(SUBJECTS)
    session = transport._session
    assert session is not None
    durable = durable_name("g", f"{name}.>")

    async def settled() -> bool:
        info = await session.api.ask(f"CONSUMER.INFO.{name}.{durable}", None, dict)
        return not info["num_ack_pending"] and not info["num_pending"]

    await until(settled)


# 17


async def test_hazard_17_a_stored_message_that_looks_like_a_status_is_delivered(
    streaming: StreamMaker, unique: Unique, raw: Raw, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    subject = f"{name}.a".encode()
    await raw.say(
        raw.hpub(subject, b"NATS/1.0\r\nStatus: 404\r\n\r\n"),
        raw.hpub(subject, b"NATS/1.0 404 No Messages\r\n\r\n"),
        raw.pub(subject, b"plain"),
    )
    reading = Subscription(pattern=f"{name}.>", group="g", start=StartAt.EARLIEST)
    feed = await transport.subscribe(reading, got := received())
    feed.grant(10)
    await got.wait(3)
    assert got.bodies == [b"", b"", b"plain"]


async def test_hazard_17_after_a_reconnect_no_more_comes_than_was_granted(
    streaming: StreamMaker, unique: Unique, notices: Notices, received: Callable[[], Received]
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(reconnect_wait=0.1)
        transport = await streaming(
            name, f"{name}.", url=server.url, options=options, report=notices
        )
        reading = Subscription(pattern=f"{name}.>", group="g", start=StartAt.EARLIEST)
        feed = await transport.subscribe(reading, got := received())
        feed.grant(10)
        for _ in range(3):
            await asyncio.to_thread(server.kill)
            await notices.wait(NoticeKind.LOST)
            await asyncio.to_thread(server.start)
            await notices.wait(NoticeKind.RESTORED)
        for number in range(40):
            await transport.publish(message(f"{name}.a", b"%d" % number))
        await got.wait(10)
        fence = await transport.subscribe(
            Subscription(pattern=f"{name}.>", start=StartAt.EARLIEST), others := received()
        )
        fence.grant(40)
        await others.wait(40)
        assert len(got.deliveries) == 10
        assert await feed.pending() == 30
        for delivery in got.deliveries:
            await feed.ack(delivery)
        feed.grant(30)
        await got.wait(40)
        assert got.bodies == [b"%d" % number for number in range(40)]


@pytest.mark.parametrize("group", ["g", None])
async def test_hazard_17_a_consumer_that_is_gone_is_made_again_where_it_stopped(
    streaming: StreamMaker,
    unique: Unique,
    notices: Notices,
    received: Callable[[], Received],
    group: str | None,
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", report=notices)
    feed = await transport.subscribe(
        Subscription(pattern=f"{name}.>", group=group), got := received()
    )
    feed.grant(1)
    await transport.publish(message(f"{name}.a", b"1"))
    await feed.ack((await got.wait(1))[0])
    session = transport._session
    assert session is not None
    (consumer,) = (await session.api.ask(f"CONSUMER.NAMES.{name}", None, dict))["consumers"]
    await session.api.ask(f"CONSUMER.DELETE.{name}.{consumer}", None, dict)
    await transport.publish(message(f"{name}.a", b"2"))
    feed.grant(5)
    await got.wait(2)
    assert got.bodies == [b"1", b"2"]
    assert any("is made again" in notice.detail for notice in notices.of(NoticeKind.ERROR))


async def test_hazard_17_a_request_that_the_server_forgot_is_made_again(
    streaming: StreamMaker, unique: Unique, notices: Notices, received: Callable[[], Received]
) -> None:
    name = unique()
    options = JetStreamOptions(heartbeat=0.2, pull_expires=60.0)
    transport = await streaming(name, f"{name}.", options=options, report=notices)
    feed = await transport.subscribe(
        Subscription(pattern=f"{name}.>", group="g"), got := received()
    )
    # What was asked is lost on the way, as by a leader that dies: the sum of what is on its way
    # says that messages will come, and none does.
    target = feed._target  # type: ignore[attr-defined]
    feed._target = b"nobody.listens"  # type: ignore[attr-defined]
    session = transport._session
    assert session is not None
    heard: list[Frame] = []
    sink = await session.connection.subscribe("nobody.listens", heard.extend)
    feed.grant(5)
    feed._target = target  # type: ignore[attr-defined]
    await transport.publish(message(f"{name}.a", b"1"))
    await got.wait(1)
    assert any("no heartbeat" in notice.detail for notice in notices.of(NoticeKind.ERROR))
    await session.connection.unsubscribe(sink)
    assert len(heard) == 1
