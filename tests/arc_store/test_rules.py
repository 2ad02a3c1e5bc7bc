"""The databases refuse by themselves, from SQL that passed no model, what breaks the contracts."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import text

from arc_bus.servers import PostgresServer
from arc_store import Conflict, InvalidField, Refused, Store
from arc_store.migrations import check, upgrade
from arc_store.translate import translated

GOOD = {"user_id": "'u'", "user_input": "'hello'", "agent_response": "'hi'"}
SESSION = {"user_id": "'u'", "room_name": "'r'"}


def vector(first: str, rest: str = "1", size: int = 1536) -> str:
    return "'[" + ",".join([first] + [rest] * (size - 1)) + "]'"


def blob(float32: str, size: int = 1536) -> str:
    """A vector in SQLite, of one little-endian number in hexadecimal."""
    return f"x'{float32 * size}'"


ONE = "0000803f"
# Column, what SQL says on PostgreSQL, on SQLite (None: as on PostgreSQL), the field it names.
REFUSED: list[tuple[str, str, str | None, str]] = [
    ("user_input", "E'a\\x00b'", "'a' || char(0) || 'b'", "user_input"),
    ("user_input", "convert_from('\\xeda080', 'UTF8')", "''", "user_input"),
    ("user_id", "repeat('x', 256)", "hex(zeroblob(128))", "user_id"),
    ("session_id", "E'a\\x00'", "'a' || char(0)", "session_id"),
    ("turn_index", "2147483648", None, "turn_index"),
    ("turn_index", "'many'", None, "turn_index"),
    ("turn_index", "-1", None, "turn_index"),
    ("llm_tokens_used", "'many'", None, "llm_tokens_used"),
    ("total_latency_ms", "-1", None, "total_latency_ms"),
    ("embedding", vector("0", "0"), blob("00000000"), "embedding"),
    ("embedding", vector("1", size=1535), blob(ONE, 1535), "embedding"),
    ("embedding", vector("1", size=1537), blob(ONE, 1537), "embedding"),
    ("embedding", "'text'", None, "embedding"),
    ("embedding", "5", None, "embedding"),
    ("context_used", "'{\"a\": NaN}'", None, "context_used"),
    ("context_used", "'{1: 1}'", None, "context_used"),
    ("created_at", "'yesterday or so'", None, "created_at"),
    ("id", "'no uuid'", None, "id"),
]
# What SQLite's SQL cannot see inside a blob or a text; the model refuses it.
REFUSED_BY_POSTGRES: list[tuple[str, str]] = [
    ("embedding", vector("NaN")),
    ("embedding", vector("Infinity")),
    ("embedding", vector("1e-30", "1e-30")),
    ("embedding", vector("1e30", "1e30")),
    ("context_used", "'{\"a\\u0000\": 1}'"),
    ("context_used", '\'{"a": ["\\u0000"]}\''),
]
# What SQL means something by: the model is stricter than the contracts' columns.
TAKEN: list[tuple[str, str, object]] = [
    ("user_input", "7", "7"),
    ("llm_tokens_used", "-1", -1),
    ("context_used", "'[]'", None),
    ("created_at", "'2026-01-01'", None),
]
BAD_SESSIONS: list[tuple[str, str]] = [
    ("room_name", "' '"),
    ("user_id", "''"),
    ("duration_seconds", "-1"),
    ("status", "'paused'"),
    ("connection_quality", "'splendid'"),
    ("total_turns", "'many'"),
    ("avg_packet_loss_percent", "1000"),
    ("recording_id", "'x'"),
    ("session_start", "'yesterday or so'"),
]


async def put(store: Store, table: str, row: dict[str, str]) -> None:
    assert store.engine is not None
    named = {"id": f"'{uuid.uuid4().hex}'", **row}
    if store.engine.dialect.name == "sqlite":
        table = table.removeprefix("agents.")
    statement = f"INSERT INTO {table} ({', '.join(named)}) VALUES ({', '.join(named.values())})"
    with translated():
        async with store.engine.begin() as connection:
            await connection.exec_driver_sql(statement)


async def assert_refused(store: Store, table: str, row: dict[str, str], field: str) -> None:
    """Expect a refusal that names the field, unless PostgreSQL refused the type: it says none."""
    with pytest.raises((InvalidField, Refused)) as refused:
        await put(store, table, row)
    assert store.engine is not None
    if isinstance(refused.value, InvalidField):
        unnamed = {"value"} if store.engine.dialect.name == "postgresql" else set()
        assert refused.value.field in {field} | unnamed
    else:
        assert "42804" in str(refused.value)  # datatype mismatch


async def test_a_turn_that_breaks_a_rule_is_refused(sql_store: Store) -> None:
    assert sql_store.engine is not None
    lite = sql_store.engine.dialect.name == "sqlite"
    await put(sql_store, "agents.conversations", {**GOOD, "turn_index": "1"})
    for column, postgres, sqlite, field in REFUSED:
        said = sqlite if lite and sqlite is not None else postgres
        await assert_refused(sql_store, "agents.conversations", {**GOOD, column: said}, field)
    for column, said in [] if lite else REFUSED_BY_POSTGRES:
        await assert_refused(sql_store, "agents.conversations", {**GOOD, column: said}, column)
    with pytest.raises(Conflict):  # without a session the published key holds
        await put(sql_store, "agents.conversations", {**GOOD, "turn_index": "1"})


async def test_what_is_taken_is_what_sql_makes_of_it(sql_store: Store) -> None:
    for number, (column, said, expected) in enumerate(TAKEN):
        index = {"turn_index": str(number)}
        await put(sql_store, "agents.conversations", {**GOOD, **index, column: said})
        if expected is not None:
            page = await sql_store.conversations.history(user_id="u")
            assert expected in [getattr(turn, column) for turn in page.items]


async def test_a_session_that_breaks_a_rule_is_refused(sql_store: Store) -> None:
    await put(sql_store, "agents.sessions", SESSION)
    for column, said in BAD_SESSIONS:
        await assert_refused(sql_store, "agents.sessions", {**SESSION, column: said}, column)


async def test_an_update_that_breaks_a_rule_is_refused(sql_store: Store) -> None:
    assert sql_store.engine is not None
    lite = sql_store.engine.dialect.name == "sqlite"
    await put(sql_store, "agents.conversations", GOOD)
    table = "conversations" if lite else "agents.conversations"
    zero = blob("00000000") if lite else vector("0", "0")
    for change in (f"embedding = {zero}", "user_input = ' '", "turn_index = -1"):
        with pytest.raises(InvalidField), translated():
            async with sql_store.engine.begin() as connection:
                await connection.execute(text(f"UPDATE {table} SET {change}"))


async def test_a_vector_without_direction_from_before_an_upgrade_is_kept_and_told_of(
    postgres_server: PostgresServer,
    unique: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    axis: Callable[..., list[float]],
) -> None:
    name = unique()
    url = postgres_server.create_database(name)
    await upgrade(url, "0002")
    with psycopg.connect(postgres_server.database_url(name, ""), autocommit=True) as connection:
        for number, embedding in enumerate((vector("0", "0"), vector("1"))):
            row = {**GOOD, "turn_index": str(number), "embedding": embedding}
            connection.execute(
                f"INSERT INTO agents.conversations ({', '.join(row)})"
                f" VALUES ({', '.join(row.values())})"
            )
    await upgrade(url)
    assert "break ck_conversations_embedding" in caplog.text
    assert await check(url) == []
    async with Store(url) as store:
        turns = (await store.conversations.history(user_id="u")).items
        assert len(turns) == 2
        found = await store.conversations.similar(axis(0), user_id="u")
        assert [match.turn.turn_index for match in found] == [1]
        [old] = [turn for turn in turns if turn.turn_index == 0]
        old.llm_model = "another"
        with pytest.raises(InvalidField, match="embedding"):
            await store.conversations.save(old)
        old.embedding = axis(0)
        assert await store.conversations.save(old)
    postgres_server.psql(f'DROP DATABASE "{name}"')
