"""Outbox: messages that were written in a transaction and wait for their relay.

Rows are claimed because they are unsent, never because their number is higher than the last: a
transaction that commits late has a lower number, and would be passed over. Rows of one key are in
one of 16 shares, and a share is one relay's at a time, so that two relays never send a key's
messages past each other. A relay holds its claim by a transaction and its locks: if it is killed,
PostgreSQL frees them at once. A service relays its own rows, for only it has their routes.
"""

from __future__ import annotations

import random
import zlib
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.transport import Outgoing
from arc_store import fields
from arc_store.base import SCHEMA, Base, JsonObject, UtcDateTime, utc_moment

SHARES = 16
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
    moment = clock(connection.dialect.name)
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


def clock(dialect: str) -> Any:
    """Return the database's clock where there are many clients, ours where SQLite has only us."""
    return utc_moment() if dialect == "sqlite" else func.now()


async def forget_dead(connection: AsyncConnection, age: timedelta) -> int:
    """Delete dead messages that died longer than `age` ago; return how many there were."""
    old = OUTBOX.c.dead_at < utc_moment() - age
    return (await connection.execute(delete(OUTBOX).where(old))).rowcount
