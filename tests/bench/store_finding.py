"""Similar turns of users with a large, a middling and a small share of all turns, with recall."""

from __future__ import annotations

import statistics
import time
from typing import Any

from measure import row
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from store_data import SHARES, STOCK, Vectors, fill, make_tables

from arc_bus.servers import PostgresServer
from arc_store import Store
from arc_store.migrations import set_index

K = 10
WARM = 5


async def by_stock(connection: AsyncConnection, query: list[float], user: str) -> set[int]:
    nearest = (
        select(STOCK.c.turn_index, STOCK.c.user_input)
        .where(STOCK.c.user_id == user)
        .order_by(STOCK.c.embedding.cosine_distance(query))
        .limit(K)
    )
    return {line[0] for line in await connection.execute(nearest)}


async def finding(url: str, vectors: Vectors, queries: int, count: int) -> list[dict[str, Any]]:
    """Rows against the stock type with HNSW, as its README shows it."""
    found: list[dict[str, Any]] = []
    engine = create_async_engine(url)
    async with Store(url) as store, engine.connect() as connection:
        for label, user, _ in SHARES:
            ours: list[float] = []
            stock: list[float] = []
            hits = stock_hits = 0
            for query in vectors.take(queries + WARM):
                begun = time.perf_counter()
                near = await store.conversations.similar(query, user_id=user, limit=K)
                ours.append((time.perf_counter() - begun) * 1000)
                begun = time.perf_counter()
                plain = await by_stock(connection, query, user)
                stock.append((time.perf_counter() - begun) * 1000)
                exact = await store.conversations.similar(query, user_id=user, limit=K, exact=True)
                right = {match.turn.turn_index for match in exact}
                hits += len(right & {match.turn.turn_index for match in near}) * K // len(right)
                stock_hits += len(right & plain) * K // len(right)
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
            for query in vectors.take(30 + WARM):
                begun = time.perf_counter()
                near = await store.conversations.similar(query, user_id=user, limit=K)
                between = time.perf_counter()
                right = await store.conversations.similar(query, user_id=user, limit=K, exact=True)
                exact.append((time.perf_counter() - between) * 1000)
                ours.append((between - begun) * 1000)
                hits += len({m.turn.id for m in near} & {m.turn.id for m in right})
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
