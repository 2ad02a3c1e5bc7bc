"""Flapping: connections that end at the worst moments, and what is left behind by each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConnectionLost
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Outgoing
from arc_nats.core import CoreTransport
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Fake,
        Notices,
    )


async def test_a_connection_that_ends_right_behind_its_handshake_is_made_again(
    core: CoreMaker, notices: Notices, fake: Fake
) -> None:
    options = NatsOptions(reconnect_wait=0.1, flush_timeout=60)
    transport = await core(fake.url, options, notices)
    fake.kicks = 5
    fake.hang_up()
    await notices.wait(NoticeKind.RESTORED)
    assert fake.connections == 7
    assert len(notices.of(NoticeKind.LOST)) == 6
    await transport.flush()


async def test_who_waited_for_a_connection_that_broke_can_wait_for_the_next_at_once(
    core: CoreMaker, fake: Fake
) -> None:
    transport = await core(fake.url, NatsOptions(reconnect_wait=0.1, flush_timeout=60))
    fake.deafen()

    async def persist() -> None:
        with pytest.raises(ConnectionLost):
            await transport.flush()
        await transport.flush()

    asking = asyncio.create_task(persist())
    await asyncio.sleep(0)
    fake.hang_up()
    async with asyncio.timeout(20):
        await asking


async def test_no_question_put_to_one_connection_is_answered_over_the_next(
    core: CoreMaker, notices: Notices, fake: Fake
) -> None:
    transport = await core(fake.url, NatsOptions(reconnect_wait=0.1), notices)
    assert transport._connection is not None
    outbox = transport._connection.outbox
    fake.deafen()
    flooding = asyncio.create_task(flood(transport))
    async with asyncio.timeout(20):
        while not outbox._paused:  # noqa: ASYNC110 - it tells no event
            await asyncio.sleep(0)
    flooding.cancel()
    asking = asyncio.create_task(transport.flush())
    await asyncio.sleep(0)
    fake.heard = b""
    fake.hang_up()
    with pytest.raises(ConnectionLost):
        await asking
    await notices.wait(NoticeKind.RESTORED)
    await transport.flush()
    # The handshake's, that behind the subscriptions, and the second flush's own.
    assert fake.heard.count(b"PING\r\n") == 3


async def test_a_subscription_that_is_cancelled_leaves_nothing_behind(
    core: CoreMaker, fake: Fake
) -> None:
    transport = await core(fake.url)
    assert transport._connection is not None
    before = set(transport._connection._subscribed)
    fake.deafen()
    subscribing = asyncio.create_task(
        transport.subscribe(Subscription(pattern="a.b"), lambda _batch: None)
    )
    await asyncio.sleep(0)
    assert set(transport._connection._subscribed) != before
    subscribing.cancel()
    await asyncio.wait({subscribing})
    assert set(transport._connection._subscribed) == before


async def flood(transport: CoreTransport) -> None:
    while True:
        await transport.publish(Outgoing("a.b", b"x" * 10_000, {}, "m"))
