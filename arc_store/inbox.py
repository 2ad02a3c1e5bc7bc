"""Inbox: the messages that were handled, remembered in the transaction that handled them."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from sqlalchemy import Column, Index, String, Table, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_bus.message import Message
from arc_store import fields
from arc_store.base import SCHEMA, Base, UtcDateTime, utc_moment

INBOX = Table(
    "inbox",
    Base.metadata,
    Column("consumer", String(255), primary_key=True),
    Column("message_id", String(255), primary_key=True),
    Column("processed_at", UtcDateTime, nullable=False),
    Index("ix_inbox_processed_at", "processed_at"),
    schema=SCHEMA,
)
_SWEPT_AT_ONCE = 1000


def identify(message: Message) -> str:
    """Return what tells `message` from every other: its id, or a hash where it has none.

    Older services send no id. What they send has a timestamp, so two of their messages are equal
    byte for byte only if one is a redelivery of the other.
    """
    if message.id:
        return message.id
    whole = message.subject.encode() + b"\n" + message.delivery.body
    return f"sha256:{hashlib.sha256(whole).hexdigest()}"


def consumer_of(message: Message) -> str:
    """Return whose effect is to happen once: the subscription's group, or else its pattern."""
    return message.subscription.group or message.subscription.pattern


async def remember(connection: AsyncConnection, consumer: str, message_id: str) -> bool:
    """Note the message in the connection's transaction; return False if it is noted already.

    Waits while another transaction holds the same message: if that one rolls back, this is the
    first after all. Raises InvalidField, LockTimeout.
    """
    row = {
        "consumer": fields.text("consumer", consumer, most=255, blank=False),
        "message_id": fields.text("message_id", message_id, most=255, blank=False),
        "processed_at": utc_moment(),
    }
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(INBOX).on_conflict_do_nothing().returning(INBOX.c.consumer)
    return (await connection.execute(statement, row)).first() is not None


async def forget_handled(connection: AsyncConnection, age: timedelta) -> int:
    """Delete up to 1,000 entries older than `age`; return how many there were."""
    old = (
        select(INBOX.c.consumer, INBOX.c.message_id)
        .where(INBOX.c.processed_at < utc_moment() - age)
        .limit(_SWEPT_AT_ONCE)
    )
    statement = delete(INBOX).where(tuple_(INBOX.c.consumer, INBOX.c.message_id).in_(old))
    return (await connection.execute(statement)).rowcount
