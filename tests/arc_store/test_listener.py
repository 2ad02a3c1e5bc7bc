"""A relay is woken by another process's commit, and polls when it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import psycopg
import pytest
from sqlalchemy import event

from arc_bus import Bus
from arc_store import Limits, RelayPolicy, Store
from arc_store.listener import Notifier
from arc_store.sql_backend import SqlBackend

DRIVERS = ("psycopg", "asyncpg")


class Ping(msgspec.Struct, frozen=True):
    number: int


@asynccontextmanager
async def two_processes(
    url: str, policy: RelayPolicy, limits: Limits | None = None
) -> AsyncIterator[tuple[Bus, Store, asyncio.Queue[int]]]:
    """A bus that only writes, and one with the relay and the reader, as two processes have them."""
    got: asyncio.Queue[int] = asyncio.Queue()

    async def on_ping(ping: Ping) -> None:
        got.put_nowait(ping.number)

    writing = Store(url, relay=None)
    writer = Bus(service="svc", routes={"": "memory://"}, plugins=[writing])
    reader = Bus(
        service="svc",
        routes={"": "memory://"},
        plugins=[Store(url, relay=policy, limits=limits or Limits())],
    )
    reader.subscribe("agent.voice.ping", on_ping, group="g")
    async with reader, writer:
        yield writer, writing, got


async def send(bus: Bus, store: Store, number: int) -> None:
    async with store.transaction() as transaction:
        await bus.publish("agent.voice.ping", Ping(number), session=transaction)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_notification_wakes_the_relay_long_before_it_polls(
    make_url: Callable[[str], str], shared_database: psycopg.Connection, driver: str
) -> None:
    async with two_processes(make_url(driver), RelayPolicy(poll=600.0)) as (bus, store, got):
        await listening(shared_database)
        for number in range(3):
            await send(bus, store, number)
            async with asyncio.timeout(20):
                assert await got.get() == number


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_broken_listener_listens_again(
    make_url: Callable[[str], str], shared_database: psycopg.Connection, driver: str
) -> None:
    async with two_processes(make_url(driver), RelayPolicy(poll=600.0)) as (bus, store, got):
        await listening(shared_database)
        shared_database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        await send(bus, store, 1)
        async with asyncio.timeout(20):
            assert await got.get() == 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_without_listening_the_relay_polls(
    make_url: Callable[[str], str], driver: str
) -> None:
    policy, limits = RelayPolicy(poll=0.05), Limits(pgbouncer=True)
    async with two_processes(make_url(driver), policy, limits) as (bus, store, got):
        await send(bus, store, 1)
        async with asyncio.timeout(20):
            assert await got.get() == 1


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_commit_while_a_notification_is_sent_is_notified_too(
    make_url: Callable[[str], str], driver: str
) -> None:
    url = make_url(driver)
    async with Store(url) as store, asyncio.timeout(20):
        backend = store._backend
        assert isinstance(backend, SqlBackend)
        notifier = Notifier(backend.database)
        came = 0

        def on_sent(*told: object) -> None:
            nonlocal came
            if "pg_notify" in str(told[2]):
                came += 1
                if came == 1:
                    notifier.notify()  # as a commit does that came too late for this one

        event.listen(backend.database.engine.sync_engine, "after_cursor_execute", on_sent)
        notifier.notify()
        await notifier.close()
    assert came == 2


async def listening(connection: psycopg.Connection) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    async with asyncio.timeout(20):
        while connection.execute(query).fetchone() is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
