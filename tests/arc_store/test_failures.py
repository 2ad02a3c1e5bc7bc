"""What goes wrong has a type of its own, and costs no write and no connection."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest

from arc_bus.servers import PostgresServer
from arc_store import (
    CommitUnknown,
    Conversation,
    Limits,
    LockTimeout,
    PoolExhausted,
    SchemaMismatch,
    StatementTimeout,
    Store,
    Unavailable,
)

Turn = Callable[..., Conversation]
MakeUrl = Callable[[str], str]
DRIVERS = ("psycopg", "asyncpg")


def checked_out(store: Store) -> int:
    assert store.engine is not None
    status: str = store.engine.pool.status()
    return int(status.rpartition("Current Checked out connections: ")[2])


async def all_returned(store: Store) -> None:
    async with asyncio.timeout(20):
        while checked_out(store):  # noqa: ASYNC110 - the pool has no event
            await asyncio.sleep(0.01)


async def test_a_pool_without_a_free_connection_says_so(postgres_store: Store, turn: Turn) -> None:
    async with (
        postgres_store.transaction(),
        postgres_store.transaction(),
        postgres_store.transaction(),
    ):
        with pytest.raises(PoolExhausted, match="pool_size"):
            await postgres_store.conversations.save(turn())
    assert await postgres_store.conversations.save(turn())


async def test_a_row_that_stays_locked_says_so(postgres_store: Store, turn: Turn) -> None:
    async with postgres_store.transaction() as transaction:
        await transaction.conversations.save(turn())
        with pytest.raises(LockTimeout):
            await postgres_store.conversations.save(turn(llm_model="other"))
    assert await postgres_store.conversations.save(turn(llm_model="other"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_statement_that_takes_too_long_says_so(
    make_url: MakeUrl, turn: Turn, driver: str
) -> None:
    limits = Limits(statement_timeout=0.2, lock_timeout=10.0)
    async with Store(make_url(driver), limits=limits) as store, store.transaction() as transaction:
        await transaction.conversations.save(turn())
        with pytest.raises(StatementTimeout):
            await store.conversations.save(turn(llm_model="other"))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_database_that_is_not_there_says_so(driver: str) -> None:
    store = Store(f"postgresql+{driver}://user:c4n4ry@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as refused:
        async with store:
            pass
    assert "c4n4ry" not in str(refused.value)
    assert (await Store("sqlite+aiosqlite:////no/such/folder/file.db").health()).ok is False


@pytest.mark.parametrize("driver", DRIVERS)
async def test_an_empty_database_names_the_command_that_mends_it(
    postgres_server: PostgresServer, unique: Callable[..., str], driver: str
) -> None:
    name = unique()
    postgres_server.create_database(name)
    store = Store(postgres_server.database_url(name, driver))
    for step in ("CREATE EXTENSION vector", "CREATE SCHEMA agents"):
        with pytest.raises(SchemaMismatch, match="arc-bus store upgrade"):
            await store.__aenter__()
        postgres_server.psql(step, name)
    async with Store(postgres_server.database_url(name, driver), migrate=True) as migrated:
        assert (await migrated.health()).ok
    postgres_server.psql("ALTER TABLE agents.conversations DROP COLUMN embedding", name)
    postgres_server.psql("ALTER TABLE agents.conversations ADD embedding vector(3)", name)
    with pytest.raises(SchemaMismatch, match=r"vector\(3\)"):
        await store.__aenter__()


class Small:
    model = "small"
    dimensions = 3

    async def embed(self, texts: object) -> list[list[float]]:
        raise AssertionError("never asked")


async def test_an_embedder_of_another_size_is_refused_at_start() -> None:
    with pytest.raises(SchemaMismatch, match="'small' makes vectors of 3"):
        await Store("memory://", embedder=Small()).__aenter__()


async def test_connections_that_the_server_ended_cost_one_retry(
    postgres_store: Store, turn: Turn, shared_database: psycopg.Connection
) -> None:
    await asyncio.gather(*(postgres_store.conversations.save(turn(index)) for index in range(3)))
    shared_database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert await postgres_store.conversations.save(turn(9))
    page = await postgres_store.conversations.history(user_id="user-1")
    assert len(page.items) == 4


class CuttingProxy:
    """Passes bytes between clients and PostgreSQL, and cuts the connection round a COMMIT.

    `before`: the COMMIT never reaches the server; else the server commits, and its answer is lost.
    """

    def __init__(self, port: int, *, before: bool) -> None:
        self._port = port
        self._before = before
        self.armed = False
        self.cuts = 0
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())  # type: ignore[arg-type]
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        cut = asyncio.Event()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if cut.is_set():  # the answer to the COMMIT
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        answering = asyncio.create_task(down())
        while data := await reader.read(65536):
            if self.armed and re.search(rb"COMMIT;?\x00", data):
                self.armed = False
                self.cuts += 1
                cut.set()
                if self._before:
                    break
            up_writer.write(data)
            await up_writer.drain()
        up_writer.close()
        await answering
        for end in (writer, up_writer):
            with suppress(OSError):  # a reset is as good an end as any
                await end.wait_closed()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_commit_without_an_answer_leaves_exactly_one_row(
    make_url: MakeUrl, postgres_server: PostgresServer, turn: Turn, driver: str, before: bool
) -> None:
    proxy = CuttingProxy(postgres_server.port, before=before)
    async with proxy.running() as port:
        url = make_url(driver).replace(f":{postgres_server.port}/", f":{port}/")
        async with Store(url, limits=Limits(pool_size=2)) as store:
            proxy.armed = True
            with pytest.raises(CommitUnknown, match="do the same again"):
                async with store.transaction() as transaction:
                    await transaction.conversations.save(turn(1))
            async with store.transaction() as transaction:
                assert await transaction.conversations.save(turn(1)) is before
            proxy.armed = True
            await store.conversations.save_many([turn(2), turn(3)])
            assert proxy.cuts == 2
            page = await store.conversations.history(user_id="user-1")
            assert sorted(t.turn_index for t in page.items) == [1, 2, 3]
            assert checked_out(store) == 0


async def test_a_cancelled_callers_write_is_done_all_the_same(sql_store: Store, turn: Turn) -> None:
    async with sql_store.transaction() as transaction:
        await transaction.conversations.save(turn(1))
        saving = asyncio.create_task(sql_store.conversations.save(turn(1, llm_model="late")))
        await asyncio.sleep(0.05)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
    await all_returned(sql_store)
    [stored] = (await sql_store.conversations.history(user_id="user-1")).items
    assert stored.llm_model == "late"


async def test_cancelling_anywhere_loses_no_write_and_no_connection(
    sql_store: Store, turn: Turn
) -> None:
    rng = random.Random(11)

    begun: set[int] = set()

    async def talk(index: int) -> None:
        begun.add(index)
        await sql_store.conversations.save(turn(index))

    for start in range(0, 120, 4):
        tasks = [asyncio.create_task(talk(index)) for index in range(start, start + 4)]
        await asyncio.sleep(rng.uniform(0, 0.003))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await all_returned(sql_store)
    page = await sql_store.conversations.history(user_id="user-1", limit=1000)
    assert {t.turn_index for t in page.items} == begun


async def test_a_transaction_cancelled_anywhere_is_whole_or_not_there(
    sql_store: Store, turn: Turn
) -> None:
    rng = random.Random(12)

    async def talk(index: int) -> None:
        async with sql_store.transaction() as transaction:
            await transaction.conversations.save(turn(index))
            await transaction.conversations.save(turn(index + 1000))

    for index in range(60):
        task = asyncio.create_task(talk(index))
        await asyncio.sleep(rng.uniform(0, 0.006))
        task.cancel()
        await asyncio.wait({task})
    await all_returned(sql_store)
    page = await sql_store.conversations.history(user_id="user-1", limit=1000)
    stored = {t.turn_index for t in page.items}
    firsts = {index for index in stored if index < 1000}
    assert stored == firsts | {index + 1000 for index in firsts}
    await talk(5000)


async def test_closing_waits_for_the_writes_of_cancelled_callers(
    make_url: MakeUrl, turn: Turn, shared_database: psycopg.Connection
) -> None:
    url = make_url("psycopg")
    async with Store(url) as store:
        tasks = [asyncio.create_task(store.conversations.save(turn(i))) for i in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    found = shared_database.execute("SELECT count(*) FROM agents.conversations").fetchone()
    assert found == (10,)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_pooler_in_transaction_mode_is_served_without_a_pool(
    make_url: MakeUrl, turn: Turn, axis: Callable[..., list[float]], driver: str
) -> None:
    async with Store(make_url(driver), limits=Limits(pgbouncer=True)) as store:
        assert store.engine is not None
        assert type(store.engine.pool).__name__ == "NullPool"
        for index in range(8):
            await store.conversations.save(turn(index, embedding=axis(index)))
        found = await store.conversations.similar(axis(3), user_id="user-1", limit=1)
        assert found[0].turn.turn_index == 3
        async with store.engine.connect() as connection:
            prepared = await connection.exec_driver_sql(
                "SELECT count(*) FROM pg_prepared_statements"
            )
            assert prepared.scalar_one() <= 1
