"""Stores of every kind, each test with a database of its own, copied from an upgraded template."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from arc_bus.servers import PostgresServer
from arc_store import Conversation, HashingEmbedder, Limits, Store
from arc_store.migrations import sql

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("psycopg", "asyncpg", "sqlite", "memory")
SQL_KINDS = KINDS[:3]
POSTGRES_KINDS = KINDS[:2]


def _axis(number: int, lean: float = 0.0) -> list[float]:
    vector = [0.0] * 1536
    vector[number] = 1.0
    vector[number + 1] = lean
    return vector


def _turn(index: int = 0, **fields: Any) -> Conversation:
    told: dict[str, Any] = {
        "user_id": "user-1",
        "session_id": "session-1",
        "turn_index": index,
        "user_input": f"question {index}",
        "agent_response": f"answer {index}",
        "created_at": MOMENT + timedelta(seconds=index),
        **fields,
    }
    return Conversation(**told)


@pytest.fixture
def axis() -> Callable[..., list[float]]:
    """Return a maker of vectors along one axis, leaning towards the next one."""
    return _axis


@pytest.fixture
def turn() -> Callable[..., Conversation]:
    """Return a maker of turns of user-1 in session-1, the n-th one n seconds after 2026 began."""
    return _turn


@pytest.fixture(scope="session")
def template(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema, to be copied."""
    name = "arc_store_template"
    postgres_server.create_database(name)
    postgres_server.psql(sql(), name)
    return name


@pytest.fixture
def make_database(
    postgres_server: PostgresServer, template: str, unique: Callable[..., str]
) -> Iterator[Callable[..., str]]:
    """Return a maker of upgraded databases; it returns their URL. They are dropped afterwards."""
    made: list[str] = []

    def make(driver: str = "psycopg") -> str:
        made.append(unique())
        postgres_server.psql(f'CREATE DATABASE "{made[-1]}" TEMPLATE "{template}"')
        return postgres_server.database_url(made[-1], driver)

    yield make
    for name in made:
        postgres_server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def shared_database(postgres_server: PostgresServer, template: str) -> Iterator[psycopg.Connection]:
    """A connection to one more copy, which is emptied for each test: much faster than a new one."""
    name = "arc_store_shared"
    postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    url = postgres_server.database_url(name, "")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return a maker of URLs of empty stores, by kind."""

    def make(kind: str) -> str:
        if kind == "memory":
            return "memory://"
        if kind == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path}/store.db"
        connection: psycopg.Connection = request.getfixturevalue("shared_database")
        server: PostgresServer = request.getfixturevalue("postgres_server")
        tables = ("conversations", "sessions", "outbox", "inbox")
        connection.execute(f"TRUNCATE {', '.join(f'agents.{table}' for table in tables)}")
        return server.database_url("arc_store_shared", kind)

    return make


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, make_url: Callable[[str], str]
) -> AsyncIterator[Store]:
    """An open store of every kind in turn."""
    async with Store(make_url(request.param), embedder=HashingEmbedder()) as store:
        yield store


@pytest.fixture(params=SQL_KINDS)
async def sql_store(
    request: pytest.FixtureRequest, make_url: Callable[[str], str]
) -> AsyncIterator[Store]:
    """An open store of every kind that has a database."""
    async with Store(make_url(request.param), embedder=HashingEmbedder()) as store:
        yield store


@pytest.fixture(params=POSTGRES_KINDS)
async def postgres_store(
    request: pytest.FixtureRequest, make_url: Callable[[str], str]
) -> AsyncIterator[Store]:
    """An open store on PostgreSQL by each driver, with short time-outs."""
    limits = Limits(pool_size=3, pool_timeout=0.3, statement_timeout=0.5, lock_timeout=0.3)
    async with Store(make_url(request.param), embedder=HashingEmbedder(), limits=limits) as store:
        yield store


@pytest.fixture
def empty(postgres_server: PostgresServer, unique: Callable[..., str]) -> str:
    """The name of a database with nothing in it."""
    name = unique()
    postgres_server.create_database(name)
    return name
