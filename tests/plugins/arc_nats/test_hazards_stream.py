"""Hazards 16, 17: what poison and lost requests do to the readers of streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Outgoing, StartAt
from arc_nats.consumers import durable_name
from arc_nats.options import JetStreamOptions
from arc_nats.parser import Frame

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Notices,
        Raw,
        Received,
        StreamMaker,
    )

Unique = Callable[..., str]

BLOCKS = [b"X", b"NATS/1.0", b"NATS/1.0 \xff\r\n\r\n", b"NATS/1.0\r\na: \xff\r\n\r\n", b"\r\n\r\n"]
SUBJECTS = [b"\xff\xfe", b"a\x0b2", b"a\x0c7", b"a\x00b", b"a\x7f", b"a\xc2\x85b"]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{hash(body)}")


async def until(reached: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Ask until it is so, for what nobody tells who waits."""
    async with asyncio.timeout(timeout):
        while not await reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


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


@pytest.mark.parametrize("group", ["g", None])
async def test_hazard_17_a_consumer_that_is_gone_before_its_first_message_passes_over_none(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received], group: str | None
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    await transport.publish(message(f"{name}.a", b"of before"))
    feed = await transport.subscribe(
        Subscription(pattern=f"{name}.>", group=group), got := received()
    )
    session = transport._session
    assert session is not None
    (consumer,) = (await session.api.ask(f"CONSUMER.NAMES.{name}", None, dict))["consumers"]
    await session.api.ask(f"CONSUMER.DELETE.{name}.{consumer}", None, dict)
    await transport.publish(message(f"{name}.a", b"1"))
    await transport.publish(message(f"{name}.a", b"2"))

    feed.grant(5)

    await got.wait(2)
    assert got.bodies == [b"1", b"2"]


async def test_hazard_17_an_answer_that_is_no_json_ends_no_mending(
    streaming: StreamMaker,
    unique: Unique,
    notices: Notices,
    received: Callable[[], Received],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", report=notices)
    feed = await transport.subscribe(
        Subscription(pattern=f"{name}.>", group="g"), got := received()
    )
    feed.grant(1)
    await transport.publish(message(f"{name}.a", b"1"))
    await feed.ack((await got.wait(1))[0])
    session = transport._session
    assert session is not None
    inbox, answers = session.api._inbox, [b"hello", b'{"name": 7, "config": {}}', b"[\xff"]
    ask = inbox.ask

    async def meddled(subject: bytes, body: bytes, timeout: float) -> Frame:
        frame = await ask(subject, body, timeout)
        if b".CONSUMER.INFO." in subject and answers:
            return (frame[0], frame[1], None, answers.pop())
        return frame

    (consumer,) = (await session.api.ask(f"CONSUMER.NAMES.{name}", None, dict))["consumers"]
    monkeypatch.setattr(inbox, "ask", meddled)
    await session.api.ask(f"CONSUMER.DELETE.{name}.{consumer}", None, dict)
    await transport.publish(message(f"{name}.a", b"2"))
    feed.grant(5)
    await got.wait(2)
    assert not answers
    told = [str(notice.error) for notice in notices.of(NoticeKind.ERROR) if notice.error]
    assert len(told) == 3
    assert all("is no JetStream: " in text for text in told)


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
