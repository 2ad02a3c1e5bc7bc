"""Similar turns of users with a large, a middling and a small share of all turns, with recall."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from measure import row
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from store_data import SHARES, STOCK, Vectors, fill, make_tables

from arc_bus.servers import PostgresServer
from arc_store import Match, Store
from arc_store.migrations import set_index

K = 10
WARM = 5
BLOCK = 10
"""Searches of one contender before the next has its turn: with another's search before each of
ours, it would be the other's rows that the processor has in its caches."""

T = TypeVar("T")


Find: TypeAlias = Callable[[list[float]], Awaitable[T]]


def batched(queries: Sequence[list[float]], most: int) -> Iterator[Sequence[list[float]]]:
    """Return the queries in blocks; `itertools.batched` is of Python 3.12."""
    return (queries[at : at + most] for at in range(0, len(queries), most))


def turns(matches: Sequence[Match]) -> set[int]:
    return {match.turn.turn_index for match in matches}


async def by_stock(connection: AsyncConnection, user: str, query: list[float]) -> set[int]:
    nearest = (
        select(STOCK.c.turn_index, STOCK.c.user_input)
        .where(STOCK.c.user_id == user)
        .order_by(STOCK.c.embedding.cosine_distance(query))
        .limit(K)
    )
    return {line[0] for line in await connection.execute(nearest)}


async def timed(find: Find[T], queries: Sequence[list[float]]) -> tuple[list[T], list[float]]:
    """Return what each query finds, and its milliseconds."""
    found: list[T] = []
    taken: list[float] = []
    for query in queries:
        begun = time.perf_counter()
        found.append(await find(query))
        taken.append((time.perf_counter() - begun) * 1000)
    return found, taken


async def finding(url: str, vectors: Vectors, queries: int, count: int) -> list[dict[str, Any]]:
    """Rows against the stock type with HNSW, as its README shows it."""
    found: list[dict[str, Any]] = []
    engine = create_async_engine(url)
    async with Store(url) as store, engine.connect() as connection:
        for label, user, _ in SHARES:
            ours: list[float] = []
            stock: list[float] = []
            hits = stock_hits = 0
            by_us = partial(store.conversations.similar, user_id=user, limit=K)
            for block in batched(vectors.take(queries + WARM), BLOCK):
                near, took = await timed(by_us, block)
                ours += took
                plain, took = await timed(partial(by_stock, connection, user), block)
                stock += took
                exact, _ = await timed(partial(by_us, exact=True), block)
                for here, there, all in zip(near, plain, exact, strict=True):
                    right = turns(all)
                    hits += len(right & turns(here)) * K // len(right)
                    stock_hits += len(right & there) * K // len(right)
            wanted = K * (queries + WARM)
            measured = row(
                f"store: {K} similar of {count:,}, user with {label} (recall {hits / wanted:.3f})",
                ours[WARM:],
                stock[WARM:],
                against_name=f"stock type with HNSW (recall {stock_hits / wanted:.3f})",
                unit="ms",
            )
            met = statistics.median(ours[WARM:]) <= 1.0 and hits == wanted
            found.append(measured | {"budget": "≤ 1 ms, recall 1.0", "met": met})
    await engine.dispose()
    return found


async def finding_among_many(
    server: PostgresServer, vectors: Vectors, count: int
) -> list[dict[str, Any]]:
    """Rows against our own exact search, for what the index gains and loses among many turns."""
    url = await make_tables(server, "many")
    begun = time.perf_counter()
    fill(server, "many", vectors, count, tables=("agents.conversations",))
    loaded = time.perf_counter()
    server.psql("ALTER DATABASE many SET maintenance_work_mem = '2GB'")
    await set_index(url, "halfvec")
    print(
        f"{count:,} turns: loaded by COPY in {loaded - begun:.0f} s,"
        f" halfvec index in {time.perf_counter() - loaded:.0f} s"
    )
    server.psql("VACUUM ANALYZE", "many")
    found: list[dict[str, Any]] = []
    async with Store(url) as store:
        for label, user, _ in SHARES:
            ours: list[float] = []
            exact: list[float] = []
            hits = 0
            by_us = partial(store.conversations.similar, user_id=user, limit=K)
            for block in batched(vectors.take(30 + WARM), BLOCK):
                near, took = await timed(by_us, block)
                ours += took
                right, took = await timed(partial(by_us, exact=True), block)
                exact += took
                pairs = zip(near, right, strict=True)
                hits += sum(len(turns(here) & turns(all)) for here, all in pairs)
            recall = hits / (K * (30 + WARM))
            found.append(
                row(
                    f"store: {K} similar of {count:,}, user with {label} (recall {recall:.3f})",
                    ours[WARM:],
                    exact[WARM:],
                    against_name="our exact search",
                    unit="ms",
                )
            )
    return found
