"""PostgreSQL that is killed again and again under load loses nothing that a call has confirmed.

Short here; `make kill-store` makes it long. What dies is every process of the server at once, so
what it has written is in the kernel's hands: that it does not sync to disk makes no difference.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from arc_bus.servers import postgres_server
from arc_bus.transport import Outgoing
from arc_store import Conversation, Limits, Store, Unavailable
from arc_store.migrations import upgrade

KILLS = int(os.environ.get("ARC_STORE_KILLS", "2"))
SEED = int(os.environ.get("ARC_STORE_SEED", "0")) or random.randrange(1, 10**6)
WRITERS = 4


class Load:
    """Writers that note what was confirmed; what was not they do again, as the errors say."""

    def __init__(self, store: Store, turn: Callable[..., Conversation]) -> None:
        self.store = store
        self.turn = turn
        self.confirmed: set[int] = set()
        self.tried: set[int] = set()
        self.failures = 0
        self.stopping = False

    async def write(self, writer: int) -> None:
        number = writer
        while not self.stopping:
            self.tried.add(number)
            try:
                await self._transaction(number)
            except Unavailable:
                self.failures += 1
                await asyncio.sleep(0.02)  # as long as the server is away
                continue
            self.confirmed.add(number)
            number += WRITERS

    async def _transaction(self, number: int) -> None:
        async with self.store.transaction() as transaction:
            await transaction.conversations.save(self.turn(number))
            await transaction.enqueue(Outgoing("a.b", b"", {}, f"m-{number}"))


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_nothing_confirmed_is_lost_when_postgresql_is_killed(
    turn: Callable[..., Conversation], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    with postgres_server() as server:
        url = server.create_database("killed")
        await upgrade(url)
        async with Store(url, limits=Limits(connect_timeout=2.0)) as store:
            load = Load(store, turn)
            writers = [asyncio.create_task(load.write(number)) for number in range(WRITERS)]
            for _ in range(KILLS):
                enough = len(load.confirmed) + rng.randrange(5, 60)
                async with asyncio.timeout(60):
                    while len(load.confirmed) < enough:  # noqa: ASYNC110 - in the middle of work
                        await asyncio.sleep(0.001)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
            load.stopping = True
            await asyncio.gather(*writers)
            stored: set[int] = set()
            cursor: str | None = None
            while True:
                page = await store.conversations.history(user_id="user-1", limit=1000, after=cursor)
                stored |= {found.turn_index for found in page.items}
                cursor = page.next
                if cursor is None:
                    break
        waiting = server.psql("SELECT message_id FROM agents.outbox ORDER BY 1", "killed").split()
    with capsys.disabled():
        print(  # noqa: T201
            f"\nseed {SEED}: {KILLS} kills, {len(load.confirmed)} confirmed,"
            f" {load.failures} failed, {len(load.confirmed - stored)} lost"
        )
    assert load.failures
    assert load.confirmed <= stored <= load.tried
    # Both parts of every transaction are there; one whose COMMIT had no answer may be so twice.
    assert {int(id.removeprefix("m-")) for id in waiting} == stored
