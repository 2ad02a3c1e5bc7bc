"""A relay whose database refuses it, as after a failover, says so and goes on when it can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from arc_bus.notice import Notice, NoticeKind
from arc_bus.servers import PostgresServer
from arc_bus.transport import Outgoing
from arc_store import Refused, RelayPolicy, Store
from arc_store.relay import Relay


def set_read_only(server: PostgresServer, name: str, value: str) -> None:
    """Let the database be as a standby is, or no longer, and end its connections."""
    server.psql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
    server.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_relay_goes_on_after_the_database_refused_it(
    make_database: Callable[..., str], postgres_server: PostgresServer, driver: str
) -> None:
    url = make_database(driver)
    name = url.rpartition("/")[2]
    refused, got = asyncio.Event(), asyncio.Event()

    async def forward(_: Outgoing) -> None:
        got.set()

    def report(notice: Notice) -> None:
        assert notice.kind is NoticeKind.ERROR
        if isinstance(notice.error, Refused):  # SQLSTATE 25006
            refused.set()

    async with Store(url) as store, asyncio.timeout(20):
        async with store.transaction() as transaction:
            await transaction.enqueue(Outgoing("a", b"", {}, "m-1"))
        set_read_only(postgres_server, name, "on")
        relay = Relay(store.outbox, forward, RelayPolicy(poll=0.05), report)
        running = asyncio.create_task(relay.run())
        await refused.wait()
        set_read_only(postgres_server, name, "off")
        await got.wait()
        await relay.stop()
        await running
        assert (await store.outbox.depth())[0] == 0
