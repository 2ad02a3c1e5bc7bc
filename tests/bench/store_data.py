"""What the rows of the store are measured with: vectors, tables, and COPY to fill them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, Uuid
from sqlalchemy.ext.asyncio import create_async_engine

from arc_bus.servers import PostgresServer
from arc_store import Conversation
from arc_store.migrations import upgrade

SAID = "What is the weather like today, and do I need a coat?"
ANSWERED = "Sunny and mild; leave the coat at home."
SHARES = (("50 %", "large", 0.5), ("1 %", "middle", 0.01), ("0.3 %", "small", 0.003))

# The same table with the type that pgvector ships, as its README shows it.
STOCK = Table(
    "stock",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("user_id", String(255), index=True),
    Column("turn_index", Integer),
    Column("user_input", Text),
    Column("agent_response", Text),
    Column("embedding", VECTOR(1536)),
)


class Vectors:
    """Vectors in 50 clusters, the same in every run."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self._centres = self._rng.normal(size=(50, 1536)).astype("float32")

    def array(self, count: int) -> Any:
        near = self._centres[self._rng.integers(0, 50, count)]
        return near + 0.4 * self._rng.standard_normal(size=near.shape, dtype="float32")

    def take(self, count: int) -> list[list[float]]:
        vectors: list[list[float]] = self.array(count).tolist()
        return vectors


def turns_of(vectors: Sequence[list[float]], user: str, start: int = 0) -> list[Conversation]:
    return [
        Conversation(
            user_id=user,
            turn_index=start + number,
            user_input=SAID,
            agent_response=ANSWERED,
            embedding=vector,
        )
        for number, vector in enumerate(vectors)
    ]


def stock_rows(vectors: Sequence[list[float]], user: str) -> list[dict[str, Any]]:
    return [
        {
            "id": uuid.uuid4(),
            "user_id": user,
            "turn_index": number,
            "user_input": SAID,
            "agent_response": ANSWERED,
            "embedding": vector,
        }
        for number, vector in enumerate(vectors)
    ]


def copy_in(url: str, table: str, vectors: Any, user: str, start: int = 0) -> None:
    """Fill a table by COPY in binary: nothing is faster, and nothing is checked or merged."""
    columns = ("id", "user_id", "turn_index", "user_input", "agent_response", "embedding")
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["uuid", "varchar", "int4", "text", "text", "vector"])
            for number, vector in enumerate(vectors, start):
                copy.write_row((uuid.uuid4(), user, number, SAID, ANSWERED, vector))


async def make_tables(server: PostgresServer, database: str) -> str:
    """Make a database with the store's tables and the stock one; return its URL."""
    url = server.create_database(database)
    await upgrade(url)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(STOCK.metadata.create_all)
    await engine.dispose()
    return url


def fill(
    server: PostgresServer,
    database: str,
    vectors: Vectors,
    count: int,
    tables: Sequence[str] = ("agents.conversations", "stock"),
) -> None:
    """Fill the tables with the users of SHARES, and 50 others who share the rest."""
    url = server.database_url(database, "")
    users = [(user, round(count * share)) for _, user, share in SHARES]
    rest = count - sum(some for _, some in users)
    users += [(f"user-{number}", rest // 50) for number in range(50)]
    for user, some in users:
        for start in range(0, some, 5000):
            array = vectors.array(min(5000, some - start))
            for table in tables:
                copy_in(url, table, array, user, start)
