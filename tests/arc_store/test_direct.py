"""A search asked of the driver keeps what SQLAlchemy gives: errors, listeners, a fresh pool."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.servers import PostgresServer
from arc_store import Conversation, Limits, LockTimeout, PoolExhausted, Store

Turn = Callable[..., Conversation]
Axis = Callable[..., list[float]]


async def test_a_listener_sees_a_search_and_finds_what_there_is(
    postgres_store: Store, turn: Turn, axis: Axis
) -> None:
    assert postgres_store.engine is not None
    stored = turn(1, embedding=axis(1), context_used={"a": [1, None]}, total_latency_ms=7)
    await postgres_store.conversations.save(stored)
    unheard = await postgres_store.conversations.similar(axis(1, 0.5), user_id="user-1")
    seen: list[str] = []

    def listen(*told: object) -> None:
        seen.append(str(told[2]))

    event.listen(postgres_store.engine.sync_engine, "before_cursor_execute", listen)
    heard = await postgres_store.conversations.similar(axis(1, 0.5), user_id="user-1")
    event.remove(postgres_store.engine.sync_engine, "before_cursor_execute", listen)
    assert any("<=>" in statement for statement in seen)
    count = len(seen)
    await postgres_store.conversations.similar(axis(1, 0.5), user_id="user-1")
    assert len(seen) == count
    assert [match.turn.to_dict() for match in unheard] == [match.turn.to_dict() for match in heard]
    assert [match.distance for match in unheard] == [match.distance for match in heard]
    assert unheard[0].turn.context_used == {"a": [1, None]}


async def test_moments_are_utc_whatever_the_time_zone_of_the_database(
    make_database: Callable[..., str], postgres_server: PostgresServer, turn: Turn, axis: Axis
) -> None:
    url = make_database("psycopg")
    name = url.rpartition("/")[2]
    postgres_server.psql(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kolkata'", name)
    async with Store(url) as store:
        stored = turn(1, embedding=axis(1))
        await store.conversations.save(stored)
        [found] = await store.conversations.similar(axis(1), user_id="user-1")
    assert found.turn.created_at == stored.created_at
    assert found.turn.created_at.tzinfo is found.turn.updated_at.tzinfo is UTC


async def test_a_search_that_waits_for_a_lock_says_so(
    postgres_store: Store, turn: Turn, axis: Axis
) -> None:
    await postgres_store.conversations.save(turn(1, embedding=axis(1)))
    async with postgres_store.transaction() as transaction:
        await transaction.session.execute(text("LOCK TABLE agents.conversations"))
        with pytest.raises(LockTimeout):
            await postgres_store.conversations.similar(axis(1), user_id="user-1")
    assert len(await postgres_store.conversations.similar(axis(1), user_id="user-1")) == 1


async def test_a_search_in_a_transaction_sees_its_own_rows(
    postgres_store: Store, turn: Turn, axis: Axis
) -> None:
    async with postgres_store.transaction() as transaction:
        await transaction.conversations.save(turn(1, embedding=axis(1)))
        assert len(await transaction.conversations.similar(axis(1), user_id="user-1")) == 1
        assert await postgres_store.conversations.similar(axis(1), user_id="user-1") == []


async def test_connections_that_the_server_ended_cost_a_search_one_retry(
    postgres_store: Store, turn: Turn, axis: Axis, shared_database: psycopg.Connection
) -> None:
    async with (
        postgres_store.transaction() as transaction,
        postgres_store.transaction(),
        postgres_store.transaction(),
    ):
        await transaction.conversations.save(turn(1, embedding=axis(1)))
    shared_database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert len(await postgres_store.conversations.similar(axis(1), user_id="user-1")) == 1


async def test_a_search_waits_for_the_pool_and_gives_its_connection_back(
    postgres_store: Store, turn: Turn, axis: Axis
) -> None:
    assert postgres_store.engine is not None
    async with (
        postgres_store.transaction() as transaction,
        postgres_store.transaction(),
        postgres_store.transaction(),
    ):
        with pytest.raises(PoolExhausted):
            await postgres_store.conversations.similar(axis(1), user_id="user-1")
        await transaction.session.execute(text("LOCK TABLE agents.conversations"))
    assert await postgres_store.conversations.similar(axis(1), user_id="user-1") == []
    pool: Any = postgres_store.engine.pool
    assert pool.checkedout() == 0


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_transaction_after_a_search_on_the_same_connection_can_be_rolled_back(
    make_database: Callable[..., str], turn: Turn, axis: Axis, driver: str
) -> None:
    async with Store(make_database(driver), limits=Limits(pool_size=1)) as store:
        assert await store.conversations.similar(axis(1), user_id="user-1") == []

        async def save_and_fail() -> None:
            async with store.transaction() as transaction:
                await transaction.conversations.save(turn(1, embedding=axis(1)))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await save_and_fail()
        assert await store.conversations.similar(axis(1), user_id="user-1") == []


async def test_a_search_by_psycopg_takes_no_connection_of_sqlalchemys(
    make_database: Callable[..., str], axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(make_database("psycopg")) as store:
        begun: list[object] = []
        monkeypatch.setattr(AsyncConnection, "start", lambda *told: begun.append(told))
        assert await store.conversations.similar(axis(1), user_id="user-1") == []
    assert begun == []
