"""Outbox: messages that were written in a transaction and wait for their relay.

Rows are claimed because they are unsent, never because their number is higher than the last: a
transaction that commits late has a lower number, and would be passed over. Rows of one key are in
one of 16 shares, and a share is one relay's at a time, so that two relays never send a key's
messages past each other. A relay holds its claim by a transaction and its locks: if it is killed,
PostgreSQL frees them at once. A service relays its own rows, for only it has their routes.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    String,
    Table,
    Text,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.transport import Outgoing
from arc_store import fields
from arc_store.base import SCHEMA, Base, JsonObject, UtcDateTime, utc_moment
from arc_store.database import Database, Run
from arc_store.page import check_limit
from arc_store.repositories import Claim, Queued

SHARES = 16
_SHARES_AT_ONCE = 4
_LOCKS = zlib.crc32(b"arc_store.outbox") & 0x7FFFFFFF
"""The advisory locks' first number, so that they are nobody else's."""

_WAITING = text("dead_at IS NULL")

OUTBOX = Table(
    "outbox",
    Base.metadata,
    Column(
        "number",
        BigInteger().with_variant(Integer(), "sqlite"),
        Identity(always=True),
        primary_key=True,
    ),
    Column("service", String(255), nullable=False),
    Column("share", SmallInteger, nullable=False),
    Column("message_id", String(255), nullable=False),
    Column("destination", Text, nullable=False),
    Column("key", Text),
    Column("headers", JsonObject, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at", UtcDateTime, nullable=False),
    Column("available_at", UtcDateTime, nullable=False),
    Column("dead_at", UtcDateTime),
    Index("ix_outbox_due", "service", "share", "number", postgresql_where=_WAITING),
    Index(
        "ix_outbox_failed",
        "share",
        "key",
        postgresql_where=text("attempts > 0 AND dead_at IS NULL"),
    ),
    schema=SCHEMA,
)
_put = insert(OUTBOX)
_TAKE_SHARES = text(
    f"""
    WITH ready AS MATERIALIZED (
        SELECT candidate FROM unnest(cast(:shares AS int[])) AS candidate
        WHERE EXISTS (
            SELECT 1 FROM {SCHEMA}.outbox
            WHERE service = :service AND share = candidate AND dead_at IS NULL
              AND available_at <= now()))
    SELECT candidate FROM ready WHERE pg_try_advisory_xact_lock(:locks, candidate)
    LIMIT {_SHARES_AT_ONCE}
    """
)
"""Tries shares until it has four; only shares with something to do are tried."""


def share_of(service: str, outgoing: Outgoing) -> int:
    """Return the share of a message: that of its key, any where it has none."""
    if outgoing.key is None:
        return random.randrange(SHARES)
    return zlib.crc32(f"{service}\n{outgoing.destination}\n{outgoing.key}".encode()) % SHARES


async def put(connection: AsyncConnection, service: str, outgoing: Outgoing) -> None:
    """Insert a message in the connection's transaction. Raises InvalidField."""
    for name in ("destination", "key", "id"):
        value: str | None = getattr(outgoing, name)
        if value is not None:
            fields.text(name, value)
    headers = fields.json_object("headers", outgoing.headers)
    moment = _now(connection.dialect.name)
    row = {
        "service": service,
        "share": share_of(service, outgoing),
        "message_id": outgoing.id,
        "destination": outgoing.destination,
        "key": outgoing.key,
        "headers": headers,
        "body": outgoing.body,
    }
    await connection.execute(_put.values(created_at=moment, available_at=moment), row)


def _now(dialect: str) -> Any:
    """Return the database's clock where there are many clients, ours where SQLite has only us."""
    return utc_moment() if dialect == "sqlite" else func.now()


def _due(service: str, moment: Any) -> list[Any]:
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
                available_at=_now(self._dialect) + delay,
            )
        )

    async def bury(self, number: int, error: str) -> None:
        """Count an attempt and keep the message as dead."""
        await self._do(
            update(OUTBOX)
            .where(OUTBOX.c.number == number)
            .values(attempts=OUTBOX.c.attempts + 1, error=error, dead_at=_now(self._dialect))
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

    def claim(self, limit: int) -> AbstractAsyncContextManager[Claim]:
        """Take due messages."""
        return self._claim_alone(limit) if self._dialect == "sqlite" else self._claim_shares(limit)

    @asynccontextmanager
    async def _claim_shares(self, limit: int) -> AsyncGenerator[Claim]:
        async with self._database.transaction() as connection:

            async def run(work: Any, *, atomic: bool = False) -> Any:
                return await self._database.background.finish(work(connection))

            async def read(connection: AsyncConnection) -> list[Queued]:
                return await self._lock_and_read(connection, limit)

            messages: list[Queued] = await run(read)
            yield SqlClaim(run, messages, self._dialect)

    async def _lock_and_read(self, connection: AsyncConnection, limit: int) -> list[Queued]:
        ready = random.sample(range(SHARES), SHARES)
        taken = [
            row[0]
            for row in await connection.execute(
                _TAKE_SHARES, {"shares": ready, "service": self.service, "locks": _LOCKS}
            )
        ]
        if not taken:
            return []
        query = select(OUTBOX).where(
            OUTBOX.c.share.in_(taken), *_due(self.service, _now(self._dialect))
        )
        rows = query.order_by(OUTBOX.c.number).limit(limit).with_for_update(skip_locked=True)
        return [_queued(row) for row in (await connection.execute(rows)).mappings()]

    @asynccontextmanager
    async def _claim_alone(self, limit: int) -> AsyncGenerator[Claim]:
        """SQLite has one writer: a transaction held while publishing would stop all the others."""
        async with self._alone:
            query = select(OUTBOX).where(*_due(self.service, _now(self._dialect)))
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
            .values(dead_at=None, attempts=0, available_at=_now(self._dialect))
            .returning(OUTBOX.c.number)
        )

        async def work(connection: AsyncConnection) -> int:
            return len((await connection.execute(statement)).all())

        return await self._database.run(work)

    async def _read(self, query: Select[Any]) -> list[Queued]:
        async def work(connection: AsyncConnection) -> list[Queued]:
            return [_queued(row) for row in (await connection.execute(query)).mappings()]

        return await self._database.run(work)


async def forget_dead(connection: AsyncConnection, age: timedelta) -> int:
    """Delete dead messages that died longer than `age` ago; return how many there were."""
    old = OUTBOX.c.dead_at < utc_moment() - age
    return (await connection.execute(delete(OUTBOX).where(old))).rowcount
