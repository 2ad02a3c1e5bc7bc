"""Statements of SQLAlchemy below the handler's span, on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from arc_bus import Bus
from arc_bus.servers import PostgresServer
from arc_telemetry import Settings
from arc_telemetry.database import _recipe, instrument_engine
from arc_telemetry.testing import Recorder


@pytest.fixture
async def engine(postgres_server: PostgresServer) -> AsyncGenerator[AsyncEngine]:
    url = postgres_server.url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


async def test_a_handlers_statements_stand_below_its_span_and_tell_no_values(
    engine: AsyncEngine, unique: Callable[..., str]
) -> None:
    recorder = Recorder()
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder])
    table = unique()

    @bus.subscribe("turn.said")
    async def save(turn: dict[str, str]) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(f"CREATE TABLE {table} (said text)"))
            await connection.execute(
                text(f"INSERT INTO {table} VALUES (:said)"), [{"said": turn["said"]}, {"said": "b"}]
            )
            await connection.execute(text(f"SELECT said FROM {table} WHERE said <> ''"))

    async with bus:
        await bus.publish("turn.said", {"said": "I am Alice"})
        await recorder.ended("process turn.said")
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))  # outside a span: not traced
    handled = recorder.span("process turn.said")
    below = [span for span in recorder.spans if span.parent_id == handled.span_id]
    assert recorder.named("SELECT") == []
    assert [span.name for span in below] == [
        f"CREATE {table}",
        f"INSERT {table}",
        f"SELECT {table}",
    ]
    assert {span.kind for span in below} == {"client"}
    insert = below[1]
    assert insert.attributes["db.system.name"] == "postgresql"
    assert insert.attributes["db.operation.name"] == "INSERT"
    assert insert.attributes["db.collection.name"] == table
    assert insert.attributes["db.operation.batch.size"] == 2
    assert "Alice" not in repr(recorder.spans)


async def test_a_failing_statement_is_a_failed_span_without_its_text(engine: AsyncEngine) -> None:
    recorder = Recorder("svc")
    stop = instrument_engine(engine, recorder.start().starter() or pytest.fail("switched off"))
    with recorder.trace_span("turn"):
        async with engine.connect() as connection:
            with pytest.raises(ProgrammingError):
                await connection.execute(text("SELECT secret FROM nowhere_at_all"))
    stop()
    span = recorder.span("SELECT nowhere_at_all")
    assert span.status == "error"
    assert span.attributes["error.type"] == "psycopg.errors.UndefinedTable"
    assert "secret" not in repr(recorder.spans)
    assert recorder.parent(span).name == "turn"


async def test_one_engine_is_traced_until_it_is_stopped() -> None:
    recorder = Recorder("svc")
    one, other = (create_async_engine("sqlite+aiosqlite://") for _ in range(2))
    stop = instrument_engine(one, recorder.start().starter() or pytest.fail("switched off"))
    with recorder.trace_span("turn"):
        for engine in (one, other):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        stop()
        async with one.connect() as connection:
            await connection.execute(text("SELECT 1"))
    for engine in (one, other):
        await engine.dispose()
    assert [span.name for span in recorder.spans] == ["turn", "SELECT"]
    assert recorder.span("SELECT").attributes["db.system.name"] == "sqlite"


async def test_statements_are_left_alone_when_that_is_asked(engine: AsyncEngine) -> None:
    recorder = Recorder(settings=Settings(database=False))
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder])
    async with bus:
        with recorder.trace_span("turn"):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
    assert [span.name for span in recorder.spans] == ["turn"]


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("SELECT a, b FROM agents.conversations WHERE user_id = %s", "SELECT agents.conversations"),
        ('INSERT INTO agents."conversations" (a) VALUES (1)', "INSERT agents.conversations"),
        ("UPDATE agents.sessions SET x = 1", "UPDATE agents.sessions"),
        ("DELETE FROM ONLY outbox WHERE id = 1", "DELETE outbox"),
        ("WITH nearest AS (SELECT id FROM turns) SELECT * FROM nearest", "SELECT turns"),
        ("CREATE TABLE IF NOT EXISTS agents.x (a int)", "CREATE agents.x"),
        ("select pg_advisory_lock(1)", "SELECT"),
        ("BEGIN", "BEGIN"),
    ],
)
def test_a_statement_is_named_by_its_verb_and_table(statement: str, name: str) -> None:
    assert _recipe(statement, "postgresql", "arc", "localhost", 5432).name == name
