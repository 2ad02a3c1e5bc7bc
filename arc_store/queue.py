"""SqlQueue: the outbox as its relay sees it, in PostgreSQL or SQLite."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.transport import Outgoing
from arc_store.base import SCHEMA, utc_moment
from arc_store.database import Database, Run
from arc_store.outbox import OUTBOX, SHARES, clock
from arc_store.page import check_limit
from arc_store.repositories import Claim, Queued
from arc_store.translate import translated

_SHARES_AT_ONCE = 4
_LOCKS = zlib.crc32(b"arc_store.outbox") & 0x7FFFFFFF
"""The advisory locks' first number, so that they are nobody else's."""

_TAKE_SHARES = text(
    f"""
    WITH ready AS MATERIALIZED (
        SELECT candidate FROM unnest(cast(:shares AS int[])) AS candidate
        WHERE EXISTS (
            SELECT 1 FROM {SCHEMA}.outbox
            WHERE service = :service AND share = candidate AND dead_at IS NULL
              AND available_at <= now() AND destination <> ALL (cast(:without AS text[]))))
    SELECT candidate FROM ready WHERE pg_try_advisory_xact_lock(:locks, candidate)
    LIMIT {_SHARES_AT_ONCE}
    """
)
"""Tries shares until it has four; only shares with something to do are tried."""


def _due(service: str, without: list[str], moment: Any) -> list[Any]:
    """Return the conditions for a row whose turn has come, with nothing of its key before it."""
    earlier = OUTBOX.alias("earlier")
    blocked = exists().where(
        earlier.c.attempts > 0,
        earlier.c.dead_at.is_(None),
        earlier.c.share == OUTBOX.c.share,
        earlier.c.key == OUTBOX.c.key,
        earlier.c.destination == OUTBOX.c.destination,
        earlier.c.number < OUTBOX.c.number,
        earlier.c.available_at > moment,
    )
    return [
        OUTBOX.c.service == service,
        OUTBOX.c.dead_at.is_(None),
        OUTBOX.c.available_at <= moment,
        OUTBOX.c.destination.not_in(without),
        ~blocked,
    ]


def _queued(row: Mapping[Any, Any]) -> Queued:
    outgoing = Outgoing(
        destination=row["destination"],
        body=bytes(row["body"]),
        headers=row["headers"],
        id=row["message_id"],
        key=row["key"],
    )
    return Queued(
        number=row["number"],
        outgoing=outgoing,
        attempts=row["attempts"],
        error=row["error"],
        dead_at=row["dead_at"],
    )


class SqlClaim:
    """`Claim` by SQL."""

    def __init__(self, run: Run, messages: Sequence[Queued], dialect: str) -> None:
        """Settle `messages` by what `run` gives."""
        self.messages = messages
        self._run = run
        self._dialect = dialect

    async def sent(self, numbers: Sequence[int]) -> None:
        """Remove the messages."""
        if numbers:
            await self._do(delete(OUTBOX).where(OUTBOX.c.number.in_(numbers)))

    async def failed(self, number: int, error: str, delay: timedelta) -> None:
        """Count an attempt and wait."""
        await self._do(
            update(OUTBOX)
            .where(OUTBOX.c.number == number)
            .values(
                attempts=OUTBOX.c.attempts + 1,
                error=error,
                available_at=clock(self._dialect) + delay,
            )
        )

    async def bury(self, number: int, error: str) -> None:
        """Count an attempt and keep the message as dead."""
        await self._do(
            update(OUTBOX)
            .where(OUTBOX.c.number == number)
            .values(attempts=OUTBOX.c.attempts + 1, error=error, dead_at=clock(self._dialect))
        )

    async def _do(self, statement: Any) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await self._run(work)


class SqlQueue:
    """`Queue` by SQL; see there for what each method promises."""

    def __init__(self, database: Database, dialect: str) -> None:
        """Keep the outbox in `database`; `service` is set when a bus starts."""
        self._database = database
        self._dialect = dialect
        self._alone = asyncio.Lock()
        self.service = ""

    def claim(
        self, limit: int, without: Collection[str] = ()
    ) -> AbstractAsyncContextManager[Claim]:
        """Take due messages."""
        take = self._claim_alone if self._dialect == "sqlite" else self._claim_shares
        return take(limit, list(without))

    @asynccontextmanager
    async def _claim_shares(self, limit: int, without: list[str]) -> AsyncGenerator[Claim]:
        async with self._database.transaction() as connection:

            async def run(work: Any, *, atomic: bool = False) -> Any:
                with translated():
                    return await self._database.background.finish(work(connection))

            async def read(connection: AsyncConnection) -> list[Queued]:
                return await self._lock_and_read(connection, limit, without)

            messages: list[Queued] = await run(read)
            yield SqlClaim(run, messages, self._dialect)

    async def _lock_and_read(
        self, connection: AsyncConnection, limit: int, without: list[str]
    ) -> list[Queued]:
        ready = random.sample(range(SHARES), SHARES)
        taken = [
            row[0]
            for row in await connection.execute(
                _TAKE_SHARES,
                {"shares": ready, "service": self.service, "locks": _LOCKS, "without": without},
            )
        ]
        if not taken:
            return []
        query = select(OUTBOX).where(
            OUTBOX.c.share.in_(taken), *_due(self.service, without, clock(self._dialect))
        )
        rows = query.order_by(OUTBOX.c.number).limit(limit).with_for_update(skip_locked=True)
        return [_queued(row) for row in (await connection.execute(rows)).mappings()]

    @asynccontextmanager
    async def _claim_alone(self, limit: int, without: list[str]) -> AsyncGenerator[Claim]:
        """SQLite has one writer: a transaction held while publishing would stop all the others."""
        async with self._alone:
            query = select(OUTBOX).where(*_due(self.service, without, clock(self._dialect)))
            messages = await self._read(query.order_by(OUTBOX.c.number).limit(limit))
            yield SqlClaim(self._database.run, messages, self._dialect)

    async def depth(self) -> tuple[int, float]:
        """Return how many messages wait, and the age of the oldest in seconds."""
        query = select(func.count(), func.min(OUTBOX.c.created_at)).where(
            OUTBOX.c.dead_at.is_(None), OUTBOX.c.service == self.service
        )

        async def work(connection: AsyncConnection) -> tuple[int, float]:
            count, oldest = (await connection.execute(query)).one()
            return count, (utc_moment() - oldest).total_seconds() if oldest else 0.0

        return await self._database.run(work)

    async def dead(self, limit: int = 100) -> Sequence[Queued]:
        """Return the dead messages, oldest first."""
        query = select(OUTBOX).where(
            OUTBOX.c.dead_at.is_not(None), OUTBOX.c.service == self.service
        )
        return await self._read(query.order_by(OUTBOX.c.number).limit(check_limit(limit)))

    async def revive(self, numbers: Sequence[int]) -> int:
        """Give dead messages to the relay again."""
        statement = (
            update(OUTBOX)
            .where(OUTBOX.c.number.in_(numbers), OUTBOX.c.dead_at.is_not(None))
            .values(dead_at=None, attempts=0, available_at=clock(self._dialect))
            .returning(OUTBOX.c.number)
        )

        async def work(connection: AsyncConnection) -> int:
            return len((await connection.execute(statement)).all())

        return await self._database.run(work)

    async def _read(self, query: Select[Any]) -> list[Queued]:
        async def work(connection: AsyncConnection) -> list[Queued]:
            return [_queued(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.run(work)
