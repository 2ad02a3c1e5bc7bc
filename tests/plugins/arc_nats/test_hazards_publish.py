"""Hazards 4, 5: what kills and lost answers do to publishes to a stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    PayloadTooLarge,
    PublishRejected,
    PublishUnconfirmed,
    TransportError,
)
from arc_bus.notice import NoticeKind
from arc_bus.testing.faults import Proxy
from arc_bus.transport import Outgoing
from arc_nats.options import JetStreamOptions

if TYPE_CHECKING:
    from arc_nats.jetstream import JetStreamTransport
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Notices,
        StreamMaker,
    )

Unique = Callable[..., str]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{hash(body)}")


async def until(reached: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Ask until it is so, for what nobody tells who waits."""
    async with asyncio.timeout(timeout):
        while not await reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


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
        assert window._free == 32
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


async def test_hazard_05_over_a_new_connection_what_has_no_answer_is_sent_again_and_stored_once(
    streaming: StreamMaker, unique: Unique, nats_server: servers.NatsServer
) -> None:
    """One publish lost on its way there and one whose answer was: no time-out is to mend it."""
    async with Proxy(nats_server.url) as proxy:
        name = unique()
        options = JetStreamOptions(confirm_timeout=20.0, publish_tries=1, reconnect_wait=0.1)
        transport = await streaming(name, f"{name}.", url=proxy.url, options=options)
        before = await streaming(name, f"{name}.")
        proxy.down.freeze()
        answered = asyncio.create_task(transport.publish(message(f"{name}.a", b"1")))

        async def stored() -> bool:
            return [delivery.body async for delivery in before.browse(f"{name}.a")] == [b"1"]

        await until(stored)
        proxy.up.freeze()
        lost = asyncio.create_task(transport.publish(message(f"{name}.a", b"2")))
        window = transport._window
        assert window is not None

        async def both_sent() -> bool:
            return sum(one.sent for one in window._waiting.values()) == 2

        await until(both_sent)
        proxy.reset()
        proxy.heal()
        await asyncio.gather(answered, lost)
        assert [delivery.body async for delivery in before.browse(f"{name}.a")] == [b"1", b"2"]


async def test_hazard_05_what_has_no_id_is_never_sent_twice(
    streaming: StreamMaker, unique: Unique, notices: Notices, nats_server: servers.NatsServer
) -> None:
    async with Proxy(nats_server.url) as proxy:
        name = unique()
        options = JetStreamOptions(confirm_timeout=3.0, reconnect_wait=0.1)
        transport = await streaming(
            name, f"{name}.", url=proxy.url, options=options, report=notices
        )
        proxy.down.freeze()
        publishing = asyncio.create_task(transport.publish(Outgoing(f"{name}.a", b"x", {}, "")))
        other = await streaming(name, f"{name}.")

        async def stored() -> bool:
            return [delivery.body async for delivery in other.browse(f"{name}.a")] == [b"x"]

        await until(stored)
        proxy.reset()
        proxy.heal()
        with pytest.raises(PublishUnconfirmed):
            await publishing
        assert notices.of(NoticeKind.RESTORED)
        assert await stored()


async def test_hazard_05_what_is_not_answered_in_time_is_sent_again(
    streaming: StreamMaker, unique: Unique
) -> None:
    name, other = unique(), unique()
    options = JetStreamOptions(confirm_timeout=1.0, publish_tries=20)
    transport = await streaming(name, f"{name}.", options=options)
    session = transport._session
    assert session is not None
    heard = asyncio.Event()
    # Somebody listens, so that the server does not say that nobody does; no stream answers yet.
    await session.connection.subscribe(f"{other}.a", lambda _: heard.set())
    publishing = asyncio.create_task(transport.publish(message(f"{other}.a", b"x")))
    async with asyncio.timeout(10):
        await heard.wait()
    await session.api.ask(
        f"STREAM.CREATE.{other}", {"name": other, "subjects": [f"{other}.>"]}, dict
    )
    await publishing
