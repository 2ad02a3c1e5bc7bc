"""Publishing to streams: confirmed, refused, bounded, and never left open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    ConnectionLost,
    PublishRejected,
    PublishUnconfirmed,
)
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Outgoing, StartAt
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import JetStreamOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Notices,
        StreamMaker,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{body!r}")


def reading(pattern: str, group: str | None = "workers", options: object = None) -> Subscription:
    return Subscription(pattern=pattern, group=group, start=StartAt.EARLIEST, options=options)


async def bodies(transport: JetStreamTransport, pattern: str) -> list[bytes]:
    return [delivery.body async for delivery in transport.browse(pattern)]


async def test_a_publish_without_a_stream_names_the_remedy(
    streaming: StreamMaker, unique: Unique
) -> None:
    transport = await streaming(unique(), f"{unique()}.")
    with pytest.raises(PublishRejected, match="make one for it"):
        await transport.publish(message(unique()))


async def test_a_full_stream_refuses_with_its_own_words(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", query="?max_bytes=2000")

    async def fill() -> None:
        for number in range(100):
            await transport.publish(message(f"{name}.a", b"%0200d" % number))

    with pytest.raises(PublishRejected, match=r"maximum bytes exceeded \(JetStream error 10077\)"):
        await fill()
    assert (await bodies(transport, f"{name}.a"))[0] == b"%0200d" % 0


async def test_the_window_bounds_what_is_unconfirmed_and_is_fair(
    streaming: StreamMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(window=4)
        transport = await streaming(name, f"{name}.", url=server.url, options=options)
        window = transport._window
        assert window is not None
        await freeze(server)
        done: list[int] = []

        async def publish(number: int) -> None:
            await transport.publish(message(f"{name}.a", b"%d" % number))
            done.append(number)

        tasks = [asyncio.create_task(publish(number)) for number in range(40)]
        async with asyncio.timeout(20):
            while len(window._waiting) < 4:  # noqa: ASYNC110 - what waits has no event
                await asyncio.sleep(0.001)
        assert len(window._waiting) == 4
        for cancelled in tasks[2:4] + tasks[10:12]:
            cancelled.cancel()
        await asyncio.wait(tasks[2:4] + tasks[10:12])
        server.resume()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == [n for n in range(40) if n not in (2, 3, 10, 11)]


async def test_a_publish_cancelled_as_it_gets_its_place_passes_it_on(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", options=JetStreamOptions(window=1))
    tasks: list[asyncio.Task[None]] = []

    async def first() -> None:
        await transport.publish(message(f"{name}.a", b"1"))
        tasks[1].cancel()  # its place is its own already, and it has not run since

    tasks.append(asyncio.create_task(first()))
    others = [message(f"{name}.a", body) for body in (b"2", b"3")]
    tasks += [asyncio.create_task(transport.publish(other)) for other in others]
    async with asyncio.timeout(10):
        await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [False, True, False]
    assert await bodies(transport, f"{name}.a") == [b"1", b"3"]


async def test_what_was_never_sent_is_told_from_what_may_be_stored(
    streaming: StreamMaker, unique: Unique, notices: Notices, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(
            confirm_timeout=0.2, publish_tries=2, reconnect_wait=0.2, close_timeout=0.2
        )
        transport = await streaming(
            name, f"{name}.", url=server.url, options=options, report=notices
        )
        await freeze(server)
        with pytest.raises(PublishUnconfirmed, match="under the same message_id"):
            await transport.publish(message(f"{name}.a", b"1"))
        await asyncio.to_thread(server.kill)
        await notices.wait(NoticeKind.LOST)
        with pytest.raises(ConnectionLost, match="not sent"):
            await transport.publish(message(f"{name}.a", b"2"))
        await asyncio.to_thread(server.start)
        await notices.wait(NoticeKind.RESTORED)
        await transport.publish(message(f"{name}.a", b"3"))
        assert (await bodies(transport, f"{name}.a"))[-1] == b"3"
