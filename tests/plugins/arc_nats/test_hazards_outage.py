"""Hazards 10, 11, 13, 15: what a peer that is gone, frozen or cross does to publishers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    ArcBusError,
    BusStopped,
    ConnectionLost,
)
from arc_bus.notice import NoticeKind
from arc_bus.transport import Outgoing
from arc_nats.core import CoreTransport
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Fake,
        Notices,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]
Say = Callable[[bytes], Awaitable[None]]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{hash(body)}")


async def until(reached: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Ask until it is so, for what nobody tells who waits."""
    async with asyncio.timeout(timeout):
        while not await reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _flood(transport: CoreTransport, subject: str) -> None:
    while True:
        await transport.publish(message(subject, b"x" * 100_000))


async def _drip(transport: CoreTransport, subject: str) -> None:
    """Publish so little at a time that no turn ever holds too much."""
    while True:
        await transport.publish(message(subject, b"x" * 10_000))
        await asyncio.sleep(0)


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


async def test_hazard_10_an_idle_black_hole_is_left_too(
    core: CoreMaker, notices: Notices, freeze: Freeze
) -> None:
    with servers.nats_server(jetstream=False) as server:
        await core(server.url, NatsOptions(ping_interval=0.2, connect_timeout=0.3), notices)
        await freeze(server)
        began = time.monotonic()
        assert "nothing heard" in (await notices.wait(NoticeKind.LOST)).detail
        assert time.monotonic() - began < 3 * 0.2 + 0.5
        server.resume()
        await notices.wait(NoticeKind.RESTORED)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone has this limit")
async def test_hazard_10_a_peer_that_speaks_and_takes_nothing_is_left(
    core: CoreMaker, unique: Unique, notices: Notices, fake: Fake
) -> None:
    options = NatsOptions(ping_interval=0.3, reconnect_wait=0.1, connect_timeout=1.0)
    transport, subject = await core(fake.url, options, notices), unique()
    fake.deafen()

    async def speak() -> None:
        while True:
            fake.say(b"+OK\r\n")
            await asyncio.sleep(0.05)

    speaking = asyncio.create_task(speak())
    flooding = asyncio.create_task(_flood(transport, subject))
    lost = await notices.wait(NoticeKind.LOST)
    assert "timed out" in lost.detail
    for task in (speaking, flooding):
        task.cancel()
    await asyncio.wait({speaking, flooding})


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
    core: CoreMaker, unique: Unique, notices: Notices, complaint: str, fake: Fake
) -> None:
    transport = await core(fake.url, NatsOptions(reconnect_wait=0.1), notices)
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


async def test_hazard_13_15_publishers_wait_in_bounded_memory_and_can_be_cancelled(
    core: CoreMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server(jetstream=False) as server:
        limit = 256 * 1024
        options = NatsOptions(buffer_bytes=limit, close_timeout=0.2)
        transport, subject = await core(server.url, options), unique()
        await freeze(server)
        flooding = [asyncio.create_task(_flood(transport, subject)) for _ in range(20)]
        flooding += [asyncio.create_task(_drip(transport, subject)) for _ in range(5)]
        worst = 0.0
        for _ in range(200):  # the loop lives on meanwhile
            before = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - before)
        assert worst < 1.0
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
