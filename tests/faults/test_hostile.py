"""Ten thousand malformed messages through a live connection into a bus: good ones pass unharmed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from arc_bus import Bus, Notice, NoticeKind
from arc_bus.servers import NatsServer

BOMBS = (
    *(b"[" * 900_000, b'{"number":' * 90_000, b'{"x":' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
    *(b'{"number":NaN}', b'{"number":1e999}', b'{"number":' + b"9" * 900_000 + b"}", b"", b"\0"),
    *(b'{"number":"\\ud800"}', b'{"number":1,"number":"x"}', b"\xff\xfe", b'{"number":"\0"}'),
    b"\x80",  # an empty map of MessagePack: random bytes are one in every fifth run
)


class Order(msgspec.Struct):
    number: int


@pytest.mark.parametrize("content_type", [b"application/json", b"application/msgpack"])
async def test_hazard_24_ten_thousand_malformed_messages_cost_no_good_one(
    nats_server: NatsServer,
    unique: Callable[..., str],
    until: Callable[..., Awaitable[None]],
    content_type: bytes,
    record_property: Callable[[str, object], None],
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    dice, stem, notices, good = random.Random(seed), unique(), list[Notice](), list[int]()
    routes = {f"{stem}.": nats_server.url, f"dead.{stem}.": "memory://?group_bytes=100000000"}
    bus = Bus("target", routes)
    bus.observe(notices.append)

    @bus.subscribe(f"{stem}.orders", group="g", prefetch=65_536)
    async def handle(order: Order) -> None:
        good.append(order.number)

    def count(kind: NoticeKind) -> int:
        return sum(notice.count for notice in notices if notice.kind is kind)

    async with bus:
        reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        for number in range(5000):
            bomb = BOMBS[number] if number < len(BOMBS) else dice.randbytes(dice.randint(0, 40))
            block = b"NATS/1.0\r\ncontent-type: %b\r\n\r\n" % content_type
            if number % 5 == 0 and number >= len(BOMBS):
                block = dice.randbytes(dice.randint(1, 40))
            sizes = b"%d %d" % (len(block), len(block) + len(bomb))
            writer.write(b"HPUB %b.orders %b\r\n%b%b\r\n" % (stem.encode(), sizes, block, bomb))
            if number % 50 == 0:
                await writer.drain()
                await bus.publish(f"{stem}.orders", {"number": number})
        writer.write(b"PING\r\n")
        async with asyncio.timeout(30):
            while await reader.readline() != b"PONG\r\n":
                pass
        await until(
            lambda: len(good) + count(NoticeKind.DEAD_LETTERED) + count(NoticeKind.DROPPED) >= 5100,
            60,
        )
        writer.close()
    assert set(range(0, 5000, 50)) <= set(good)
    assert count(NoticeKind.LOST) == 0
    assert count(NoticeKind.DEAD_LETTERED) > 3000
    assert count(NoticeKind.RETRIED) == 0  # what cannot be read once never can
