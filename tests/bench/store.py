"""arc_store against pgvector's stock type and langchain-postgres: saving and finding.

Clustered vectors of 1536 dimensions, PostgreSQL without sync to disk, psycopg, one client. Recall
is counted against an exact search in the same run. `FULL=1` adds the searches among 200,000 turns,
whose loading and index take minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from measure import row
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from store_data import SAID, STOCK, Vectors, copy_in, fill, make_tables, stock_rows, turns_of
from store_finding import finding, finding_among_many

from arc_bus.servers import PostgresServer, postgres_server
from arc_store import Store
from arc_store.migrations import set_index

PEERS = Path("build/peers").resolve()
LANGCHAIN = "langchain-postgres==0.0.19"


class Peer:
    """langchain-postgres in its process; see langchain_peer.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, **told: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())


def install_langchain() -> bool:
    """Put langchain-postgres into a folder of its own; return whether it is there."""
    if not (PEERS / "langchain_postgres").exists():
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        done = subprocess.run([*uv, "--target", str(PEERS), LANGCHAIN], check=False)
        if done.returncode:
            print(f"{LANGCHAIN} cannot be installed: its rows are left out")
            return False
    return True


@asynccontextmanager
async def langchain(server: PostgresServer, quick: bool) -> AsyncGenerator[Peer | None]:
    if quick or not install_langchain():
        yield None
        return
    url = server.create_database("langchain")
    server.psql("CREATE EXTENSION vector", "langchain")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("langchain_peer.py")), url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**26,
        env={**os.environ, "PYTHONPATH": str(PEERS)},
    )
    peer = Peer(process)
    try:
        assert await peer.answer() == "ready"
        server.psql("CREATE INDEX ON peer (user_id)", "langchain")
        yield peer
    finally:
        process.kill()
        await process.wait()


async def milliseconds(work: Callable[[], Awaitable[object]], per: int = 1) -> float:
    begun = time.perf_counter()
    await work()
    return (time.perf_counter() - begun) * 1000 / per


async def saving(
    store: Store, engine: AsyncEngine, peer: Peer | None, vectors: Vectors, quick: bool
) -> list[dict[str, Any]]:
    """Rows for one turn at a time, each committed, and for 64 in one transaction."""
    found: list[dict[str, Any]] = []
    for name, size, goal in (("one turn, committed", 1, None), ("64 turns, a row", 64, 0.15)):
        ours: list[float] = []
        stock: list[float] = []
        theirs: list[float] = []
        some = size * (40 if size == 1 else 4)
        for number in range((5 if quick else 15) + 1):
            user = f"saving-{size}-{number}"
            given = vectors.take(some)
            turns, rows = turns_of(given, user), stock_rows(given, user)

            async def by_store(turns: list[Any] = turns, size: int = size) -> None:
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
                figures.append(await milliseconds(work, some))
            if peer is not None:
                told = {"do": "save", "user": user, "text": SAID}
                parts = range(0, some, size)
                took = [
                    (
                        await peer.ask(
                            **told,
                            numbers=list(range(start, start + size)),
                            vectors=given[start : start + size],
                        )
                    )["ms"]
                    for start in parts
                ]
                theirs.append(sum(took) / some)
        budget = {} if goal is None else {"budget": f"≤ {goal} ms"}
        for against, against_name in (
            (stock, "pgvector's stock type, plain insert"),
            (theirs, "langchain-postgres"),
        ):
            if against:
                measured = row(
                    f"store: save {name}",
                    ours[1:],
                    against[1:],
                    against_name=against_name,
                    unit="ms",
                    at_most=1.0,
                )
                if goal is not None:
                    measured |= {**budget, "met": measured["ours"] <= goal}
                found.append(measured)
    return found


async def copying(store: Store, url: str, vectors: Vectors, quick: bool) -> dict[str, Any]:
    """A row for 2,000 turns at once, against COPY, which neither merges nor checks anything."""
    ours: list[float] = []
    copy: list[float] = []
    for number in range(3 if quick else 7):
        given = vectors.array(2000)
        turns = turns_of(given.tolist(), f"many-{number}")
        begun = time.perf_counter()
        await store.conversations.save_many(turns)
        between = time.perf_counter()
        await asyncio.to_thread(copy_in, url, "agents.conversations", given, f"copy-{number}")
        ours.append((between - begun) / 2)
        copy.append((time.perf_counter() - between) / 2)
    return row(
        "store: save 2,000 turns, a row",
        ours[1:],
        copy[1:],
        against_name="COPY, binary, into the same table",
        unit="ms",
    )


async def rows(quick: bool) -> list[dict[str, Any]]:
    """Return the rows of the store."""
    vectors = Vectors()
    with postgres_server() as server:
        # As a server is set up that is meant to be fast: by default it keeps 128 MB in memory, and
        # the tables of three contenders would throw each other out.
        server.psql("ALTER SYSTEM SET shared_buffers = '1GB'")
        server.restart()
        url = await make_tables(server, "bench")
        engine = create_async_engine(url)
        async with langchain(server, quick) as peer, Store(url) as store:
            found = await saving(store, engine, peer, vectors, quick)
        async with Store(url) as store:
            found.append(await copying(store, server.database_url("bench", ""), vectors, quick))
        await engine.dispose()
        if os.environ.get("FULL") and not quick:
            found += await finding_among_many(server, vectors, 200_000)
        count = 3000 if quick else 10_000
        url = await make_tables(server, "search")
        fill(server, "search", vectors, count)
        await set_index(url, "halfvec")
        server.psql("CREATE INDEX ON stock USING hnsw (embedding vector_cosine_ops)", "search")
        server.psql("VACUUM ANALYZE", "search")
        return found + await finding(url, vectors, 20 if quick else 60, count)
