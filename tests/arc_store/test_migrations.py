"""The schema is brought to this version from nothing and from what was published, without loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from arc_bus.errors import ConfigError
from arc_bus.servers import PostgresServer
from arc_store import Conversation, Refused, SchemaMismatch, Store
from arc_store.migrations import check, downgrade, set_index, upgrade

DRIVERS = ("psycopg", "asyncpg")

# The published tables as another program would have made them, with names of its own.
PUBLISHED = """
CREATE EXTENSION vector;
CREATE SCHEMA agents;
CREATE TABLE agents.conversations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id varchar(255) NOT NULL,
    agent_id varchar(255) NOT NULL DEFAULT 'arc-scarlett-voice',
    room_name varchar(255),
    session_id varchar(255),
    turn_index integer NOT NULL DEFAULT 0 CHECK (turn_index >= 0),
    user_input text NOT NULL,
    agent_response text NOT NULL,
    embedding vector(1536),
    context_used jsonb,
    llm_model varchar(100),
    llm_tokens_used integer,
    stt_model varchar(100),
    tts_model varchar(100),
    stt_latency_ms integer,
    llm_latency_ms integer,
    tts_latency_ms integer,
    total_latency_ms integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, agent_id, turn_index)
);
CREATE INDEX idx_conv_user ON agents.conversations (user_id);
CREATE INDEX idx_conv_created ON agents.conversations (created_at DESC);
CREATE INDEX idx_conv_user_created ON agents.conversations (user_id, created_at DESC);
CREATE TABLE agents.sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    room_name varchar(255) NOT NULL,
    room_sid varchar(255),
    participant_sid varchar(255),
    user_id varchar(255) NOT NULL,
    user_identity varchar(255),
    agent_id varchar(255) NOT NULL DEFAULT 'arc-scarlett-voice',
    session_start timestamptz NOT NULL DEFAULT now(),
    session_end timestamptz,
    duration_seconds integer,
    total_turns integer NOT NULL DEFAULT 0,
    total_user_messages integer NOT NULL DEFAULT 0,
    total_agent_messages integer NOT NULL DEFAULT 0,
    error_count integer NOT NULL DEFAULT 0,
    avg_latency_ms integer NOT NULL DEFAULT 0,
    p95_latency_ms integer NOT NULL DEFAULT 0,
    p99_latency_ms integer NOT NULL DEFAULT 0,
    avg_packet_loss_percent numeric(5,2),
    avg_jitter_ms integer,
    connection_quality varchar(20) NOT NULL DEFAULT 'good',
    status varchar(50) NOT NULL DEFAULT 'active',
    error_message text,
    recording_id uuid,
    recording_url text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sessions_by_status ON agents.sessions (status);
CREATE TABLE agents.of_somebody_else (id int);
CREATE INDEX of_somebody_else_too ON agents.sessions (room_sid);
"""
ROWS = """
INSERT INTO agents.conversations (user_id, turn_index, user_input, agent_response, embedding)
SELECT 'user-' || n % 10, n / 10, 'question ' || n, 'answer ' || n,
       (SELECT array_agg(sin(n * i)) FROM generate_series(1, 1536) i)::vector
FROM generate_series(0, 999) n;
INSERT INTO agents.sessions (room_name, user_id)
SELECT 'room', 'user-' || n FROM generate_series(0, 9) n;
"""
# After the rows, because it is built five times faster than it grows.
VECTOR_INDEX = """
CREATE INDEX idx_conv_vector ON agents.conversations
    USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64);
"""
SUM = "SELECT count(*), md5(string_agg({0}::text, ',' ORDER BY id)) FROM agents.{0}"
TURNS = """
SELECT count(*), md5(string_agg(concat_ws('|', id, user_id, turn_index, user_input, embedding,
    created_at), ',' ORDER BY id)) FROM agents.conversations
"""


@pytest.mark.parametrize("driver", DRIVERS)
async def test_nothing_differs_after_an_upgrade_from_nothing(
    postgres_server: PostgresServer, empty: str, driver: str
) -> None:
    url = postgres_server.database_url(empty, driver)
    await upgrade(url)
    await upgrade(url)
    assert await check(url) == []


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_published_schema_is_upgraded_without_losing_a_row(
    postgres_server: PostgresServer, empty: str, driver: str
) -> None:
    postgres_server.psql(PUBLISHED + ROWS + VECTOR_INDEX, empty)
    turns, sessions = (
        postgres_server.psql(TURNS, empty),
        postgres_server.psql(SUM.format("sessions"), empty),
    )
    assert turns.startswith("1000|")
    url = postgres_server.database_url(empty, driver)
    for revision in ("head", "0001", "head"):
        if revision == "head":
            await upgrade(url)
            assert await check(url) == []
        else:
            await downgrade(url, revision)
            assert await check(url) != []
        assert postgres_server.psql(TURNS, empty) == turns
        assert postgres_server.psql(SUM.format("sessions"), empty) == sessions
    names = postgres_server.psql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'agents' ORDER BY 1", empty
    ).split("\n")
    assert "ix_conversations_user_id" in names
    assert "idx_conv_user" not in names
    assert {"idx_conv_vector", "of_somebody_else_too"} <= set(names)
    async with Store(url) as store:
        vector = (await store.conversations.history(user_id="user-3", limit=1)).items[0]
        whole = await store.conversations.get(vector.id, embedding=True)
        assert whole is not None
        assert whole.embedding is not None
        found = await store.conversations.similar(whole.embedding, user_id="user-3", limit=1)
        assert found[0].turn.id == vector.id
        assert await store.conversations.save(
            Conversation(
                user_id="user-3",
                session_id="new",
                turn_index=0,
                user_input="the published key forbade me",
                agent_response="ours does not",
            )
        )


async def test_a_downgrade_that_would_break_the_published_key_is_refused_whole(
    make_database: Callable[..., str], turn: Callable[..., Conversation]
) -> None:
    url = make_database()
    async with Store(url) as store:
        await store.conversations.save_many([turn(session_id="a"), turn(session_id="b")])
    with pytest.raises(Refused, match="1 turns share"):
        await downgrade(url, "0001")
    assert await check(url) == []


async def test_rows_that_break_a_rule_stay_and_new_ones_are_refused(
    postgres_server: PostgresServer, empty: str
) -> None:
    old = "INSERT INTO agents.sessions (room_name, user_id, status) VALUES ('r', 'u', 'odd')"
    postgres_server.psql(PUBLISHED + old, empty)
    await upgrade(postgres_server.database_url(empty))
    assert postgres_server.psql("SELECT status FROM agents.sessions", empty) == "odd"
    with pytest.raises(Exception, match="ck_sessions_status"):
        postgres_server.psql(old, empty)


async def test_upgrades_at_the_same_time_wait_for_each_other(
    postgres_server: PostgresServer, empty: str
) -> None:
    url = postgres_server.database_url(empty)
    await asyncio.gather(*(upgrade(url) for _ in range(4)))
    assert await check(url) == []


async def test_the_extension_may_be_left_to_somebody_else(
    postgres_server: PostgresServer, empty: str
) -> None:
    url = postgres_server.database_url(empty)
    with pytest.raises(SchemaMismatch, match="vector"):
        await upgrade(url, extension=False)
    postgres_server.psql("CREATE EXTENSION vector", empty)
    await upgrade(url, extension=False)
    assert await check(url) == []


async def test_a_difference_is_found(
    make_database: Callable[..., str], postgres_server: PostgresServer
) -> None:
    url = make_database()
    name = url.rpartition("/")[2]
    postgres_server.psql("ALTER TABLE agents.outbox DROP COLUMN error", name)
    postgres_server.psql("DROP INDEX agents.ix_sessions_status", name)
    found = " ".join(await check(url))
    assert "error" in found
    assert "ix_sessions_status" in found


async def test_the_approximate_index_comes_and_goes(
    make_database: Callable[..., str], postgres_server: PostgresServer
) -> None:
    url = make_database()
    name = url.rpartition("/")[2]
    query = "SELECT string_agg(indexname, ',') FROM pg_indexes WHERE indexdef LIKE '%hnsw%'"
    for kind, expected in (
        ("vector", "ix_conversations_embedding_vector"),
        ("halfvec", "ix_conversations_embedding_halfvec"),
        ("none", ""),
    ):
        await set_index(url, kind)  # type: ignore[arg-type]
        assert postgres_server.psql(query, name) == expected
        assert await check(url) == []
    with pytest.raises(ConfigError, match="ivfflat"):
        await set_index(url, "ivfflat")  # type: ignore[arg-type]


async def test_only_postgresql_is_migrated() -> None:
    with pytest.raises(ConfigError, match="only PostgreSQL"):
        await upgrade("sqlite+aiosqlite:///file.db")


async def test_a_sqlite_file_of_another_version_is_refused(make_url: Callable[[str], str]) -> None:
    import sqlite3

    url = make_url("sqlite")
    async with Store(url):
        pass
    async with Store(url):
        pass
    connection = sqlite3.connect(url.partition("///")[2])
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SchemaMismatch, match="99"):
        await Store(url).__aenter__()
