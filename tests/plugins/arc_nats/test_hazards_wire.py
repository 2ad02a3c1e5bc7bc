"""Hazards 1, 2, 3, 12: what hostile bytes, late answers and false servers do to the wire.

The numbers are those of tests/faults/test_hazards.py. 6 and 21, misconfigured and drifted streams
and consumers, are in test_streams.py and test_consumers.py; sizes and header forgery in
test_core.py and test_headers.py.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    ConnectFailed,
    ConnectionLost,
)
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Subscription
from arc_bus.testing.faults import Proxy
from arc_bus.transport import Endpoint, Outgoing
from arc_nats.core import CoreTransport
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Fake,
        Notices,
        Raw,
        Received,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]
Say = Callable[[bytes], Awaitable[None]]

BLOCKS = [b"X", b"NATS/1.0", b"NATS/1.0 \xff\r\n\r\n", b"NATS/1.0\r\na: \xff\r\n\r\n", b"\r\n\r\n"]
SUBJECTS = [b"\xff\xfe", b"a\x0b2", b"a\x0c7", b"a\x00b", b"a\x7f", b"a\xc2\x85b"]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{hash(body)}")


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
    core: CoreMaker, notices: Notices, fake: Fake
) -> None:
    transport = await core(fake.url, report=notices)
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


@pytest.mark.parametrize("offers", [b"", b',"tls_available":true', b',"tls_required":true'])
async def test_hazard_03_a_server_without_tls_never_sees_the_password(
    offers: bytes, fake: Fake
) -> None:
    fake.info = fake.info[:-1] + offers + b"}"
    for scheme, options in (
        ("tls", NatsOptions(connect_timeout=1.0)),
        ("nats", NatsOptions(connect_timeout=1.0, tls=ssl.create_default_context())),
    ):
        asked = fake.url.replace("nats://", f"{scheme}://user:canary@")
        transport = CoreTransport(Endpoint(url=asked, options=options))
        with pytest.raises(ConnectFailed, match=r"TLS|did not answer|closed"):
            await transport.start()
    assert b"canary" not in fake.heard
    assert b"CONNECT" not in fake.heard


async def test_hazard_03_what_is_said_in_the_clear_before_tls_is_not_taken_for_encrypted(
    fake: Fake,
) -> None:
    fake.info = fake.info[:-1] + b',"tls_required":true}\r\nPONG'
    transport = CoreTransport(Endpoint(url=fake.url.replace("nats://", "tls://u:canary@")))
    with pytest.raises(ConnectFailed, match="between INFO and the TLS handshake"):
        await transport.start()
    assert b"canary" not in fake.heard


async def test_hazard_12_the_barrier_stands_behind_the_data(
    core: CoreMaker, received: Callable[[], Received], fake: Fake
) -> None:
    transport = await core(fake.url)
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


async def test_hazard_12_what_the_server_had_sent_before_stop_is_delivered(
    core: CoreMaker,
    unique: Unique,
    received: Callable[[], Received],
    nats_server: servers.NatsServer,
) -> None:
    async with Proxy(nats_server.url) as proxy:
        publisher, reader, subject = await core(), await core(proxy.url), unique()
        got = received()
        feed = await reader.subscribe(Subscription(pattern=subject), got)
        proxy.down.freeze()
        for _ in range(5000):
            await publisher.publish(message(subject))
        await publisher.flush()
        proxy.down.thaw()
        await feed.stop()
        assert len(got.deliveries) == 5000
