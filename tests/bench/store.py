"""arc_store against pgvector's stock type: saving turns, and finding similar ones.

Clustered vectors of 1536 dimensions, PostgreSQL without sync to disk, psycopg, one client. Recall
is counted against an exact search in the same run.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from measure import row
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, Uuid, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from arc_bus.servers import postgres_server
from arc_store import Conversation, Store
from arc_store.migrations import set_index, upgrade

SHARES = (("50 %", "large", 0.5), ("1 %", "middle", 0.01), ("0.3 %", "small", 0.003))
K = 10

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
        self._centres = self._rng.normal(size=(50, 1536))

    def take(self, count: int) -> list[list[float]]:
        near = self._centres[self._rng.integers(0, 50, count)]
        vectors: list[list[float]] = (near + 0.4 * self._rng.normal(size=near.shape)).tolist()
        return vectors


def turns_of(vectors: Sequence[list[float]], user: str, start: int = 0) -> list[Conversation]:
    return [
        Conversation(
            user_id=user,
            turn_index=start + number,
            user_input="What is the weather like today, and do I need a coat?",
            agent_response="Sunny and mild; leave the coat at home.",
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
            "user_input": "What is the weather like today, and do I need a coat?",
            "agent_response": "Sunny and mild; leave the coat at home.",
            "embedding": vector,
        }
        for number, vector in enumerate(vectors)
    ]


async def milliseconds(work: Callable[[], Awaitable[object]], per: int = 1) -> float:
    begun = time.perf_counter()
    await work()
    return (time.perf_counter() - begun) * 1000 / per


async def saving(
    store: Store, engine: AsyncEngine, vectors: Vectors, quick: bool
) -> list[dict[str, Any]]:
    """Rows for one turn at a time, each committed, and for 64 in one transaction."""
    found: list[dict[str, Any]] = []
    rounds = 5 if quick else 15
    for name, size, goal in (("one turn, committed", 1, None), ("64 turns, a row", 64, 0.15)):
        ours: list[float] = []
        stock: list[float] = []
        repeats = 40 if size == 1 else 4
        for number in range(rounds + 1):
            some = vectors.take(size * repeats)
            turns = turns_of(some, f"saving-{size}-{number}")
            rows = stock_rows(some, f"saving-{size}-{number}")

            async def by_store(turns: list[Conversation] = turns, size: int = size) -> None:
                for start in range(0, len(turns), size):
                    if size == 1:
                        await store.conversations.save(turns[start])
                    else:
                        await store.conversations.save_many(turns[start : start + size])

            async def by_stock(rows: list[dict[str, Any]] = rows, size: int = size) -> None:
                for start in range(0, len(rows), size):
                    async with engine.begin() as connection:
                        await connection.execute(insert(STOCK), rows[start : start + size])

            pair = ((by_store, ours), (by_stock, stock))
            for work, figures in pair if number % 2 else pair[::-1]:
                figures.append(await milliseconds(work, len(some)))
        measured = row(
            f"store: save {name}",
            ours[1:],
            stock[1:],
            against_name="pgvector's stock type, plain insert",
            unit="ms",
            at_most=1.0,
        )
        if goal is not None:
            measured |= {"budget": f"≤ {goal} ms", "met": measured["ours"] <= goal}
        found.append(measured)
    return found


async def finding(
    store: Store, engine: AsyncEngine, vectors: Vectors, quick: bool
) -> list[dict[str, Any]]:
    """Rows for users with 50 %, 1 % and 0.3 % of the turns, with recall@10."""
    found: list[dict[str, Any]] = []
    queries = vectors.take(20 if quick else 60)
    async with engine.connect() as connection:
        for label, user, _ in SHARES:
            ours: list[float] = []
            stock: list[float] = []
            hits = stock_hits = wanted = 0
            for query in queries:
                begun = time.perf_counter()
                near = await store.conversations.similar(query, user_id=user, limit=K)
                ours.append((time.perf_counter() - begun) * 1000)
                begun = time.perf_counter()
                nearest = (
                    select(STOCK.c.turn_index, STOCK.c.user_input)
                    .where(STOCK.c.user_id == user)
                    .order_by(STOCK.c.embedding.cosine_distance(query))
                    .limit(K)
                )
                plain = [line[0] for line in await connection.execute(nearest)]
                stock.append((time.perf_counter() - begun) * 1000)
                exact = await store.conversations.similar(query, user_id=user, limit=K, exact=True)
                right = {match.turn.turn_index for match in exact}
                wanted += len(right)
                hits += len(right & {match.turn.turn_index for match in near})
                stock_hits += len(right & set(plain))
            measured = row(
                f"store: {K} similar turns of a user with {label} (recall {hits / wanted:.2f})",
                ours[5:],
                stock[5:],
                against_name=f"stock type with HNSW (recall {stock_hits / wanted:.2f})",
                unit="ms",
            )
            met = statistics.median(ours[5:]) <= 1.0 and hits == wanted
            found.append(measured | {"budget": "≤ 1 ms, recall 1.0", "met": met})
    return found


async def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows of the store."""
    count = 3000 if quick else 10_000
    vectors = Vectors()
    with postgres_server() as server:
        url = server.create_database("bench")
        await upgrade(url)
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(STOCK.metadata.create_all)
        async with Store(url) as store:
            saved = await saving(store, engine, vectors, quick)
            for _, user, share in SHARES:
                await fill(store, engine, vectors.take(round(count * share)), user)
            others = vectors.take(count - round(count * sum(share for *_, share in SHARES)))
            for number in range(50):
                await fill(store, engine, others[number::50], f"user-{number}")
        await set_index(url, "halfvec")
        async with engine.begin() as connection:
            await connection.execute(
                text("CREATE INDEX ON stock USING hnsw (embedding vector_cosine_ops)")
            )
        server.psql("VACUUM ANALYZE", "bench")
        async with Store(url) as store:
            found = await finding(store, engine, vectors, quick)
        await engine.dispose()
    return saved + found


async def fill(
    store: Store, engine: AsyncEngine, vectors: Sequence[list[float]], user: str
) -> None:
    for start in range(0, len(vectors), 250):
        some = vectors[start : start + 250]
        await store.conversations.save_many(turns_of(some, user, start))
        async with engine.begin() as connection:
            batch = stock_rows(some, user)
            for entry in batch:
                entry["turn_index"] += start
            await connection.execute(insert(STOCK), batch)
