"""Flapping: connections that end at the worst moments, and what is left behind by each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConnectionLost
from arc_bus.notice import NoticeKind
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
