"""Conversations, Sessions, Queue, Backend: the interface that every database behind a store has.

Three implementations: PostgreSQL and SQLite (`SqlBackend`) and memory (`MemoryBackend`). One suite
of tests runs against all of them; a difference between them is a bug or is said here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol, TypedDict, Unpack
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from arc_bus.errors import Unsupported
from arc_bus.transport import Outgoing
from arc_store.models import Conversation, Session
from arc_store.page import Page
from arc_store.search import Filters, Match


class Conversations(Protocol):
    """The turns.

    Called on a store each method is a transaction of its own; on a transaction, part of that one.
    A method that was cancelled still does its work to the end.
    """

    async def save(self, turn: Conversation) -> bool:
        """Insert the turn, or change the row with its natural key; return whether anything changed.

        A field that is None keeps what the row has, so a vector may be added later by saving the
        turn again; but when a text changes, a vector not given again is removed, for it no longer
        describes the turn. `id` and `created_at` stay those of the first save. After a connection
        broke the statement is run again, and then the answer may be False though it did change.
        Raises Conflict if another turn has this id, Unavailable.
        """
        ...

    async def save_many(self, turns: Sequence[Conversation]) -> int:
        """Save all turns or none, in one transaction; return how many rows changed.

        Turns with one natural key become one, a later field winning over an earlier one. Raises as
        `save` does.
        """
        ...

    async def get(self, id: UUID, *, embedding: bool = False) -> Conversation | None:
        """Return the turn, its vector only if asked for; None if there is none."""
        ...

    async def history(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Conversation]:
        """Return up to `limit` (1 to 1000) turns, the newest by `created_at` first.

        `after` is the `next` of the page before. Raises InvalidField without any of the three ids,
        InvalidCursor.
        """
        ...

    async def similar(
        self, embedding: Sequence[float], **filters: Unpack[Filters]
    ) -> Sequence[Match]:
        """Return the turns nearest to `embedding` by cosine distance, the nearest first.

        Never fewer than `limit` while that many fulfil the filters (see `Search` for them). With a
        `user_id` the answer is exact unless an approximate index exists and the user has more than
        2,000 turns. Turns without a vector are not found. Raises InvalidField.
        """
        ...


class Outcome(TypedDict, total=False):
    """What may be told at the end of a session; each is the `Session` field of the same name."""

    status: str
    session_end: datetime
    error_message: str | None
    error_count: int
    connection_quality: str
    avg_packet_loss_percent: float | None
    avg_jitter_ms: int | None
    recording_id: UUID | None
    recording_url: str | None


class Sessions(Protocol):
    """The sessions; transactions and cancellation as for `Conversations`."""

    async def start(self, session: Session) -> bool:
        """Insert the session; return False, changing nothing, if its id is there already."""
        ...

    async def record_turn(self, turn: Conversation) -> Session:
        """Save the turn and bring its session's counts and latencies up to date, all or nothing.

        Counts and latencies are computed from the session's turns, so that recording a turn twice
        counts it once. Raises NotFound if no session has the id `turn.session_id`: where turns may
        come before their session, save the turn then, and record it again, for the session may
        have been started in between.
        """
        ...

    async def end(self, id: UUID, **outcome: Unpack[Outcome]) -> Session:
        """Mark the session as ended (or `status="error"`) now, or at `session_end`.

        `duration_seconds`, counts and latencies are computed. Ending it again changes only what is
        given. Raises NotFound, InvalidField.
        """
        ...

    async def get(self, id: UUID) -> Session | None:
        """Return the session, or None."""
        ...

    async def active(
        self, *, user_id: str | None = None, agent_id: str | None = None, limit: int = 100
    ) -> Sequence[Session]:
        """Return up to `limit` (1 to 1000) sessions that have not ended, the newest first."""
        ...


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the outbox; `attempts` failed so far, the last one with `error`."""

    number: int
    outgoing: Outgoing
    attempts: int = 0
    error: str = ""
    dead_at: datetime | None = None


class Claim(Protocol):
    """Messages that this relay alone holds for a block. What is not settled comes again."""

    @property
    def messages(self) -> Sequence[Queued]:
        """Return them, oldest first; nothing older of their keys is left behind."""
        ...

    async def sent(self, numbers: Sequence[int]) -> None:
        """Remove messages that the broker has."""
        ...

    async def failed(self, number: int, error: str, delay: timedelta) -> None:
        """Count an attempt, and keep the message and all later ones of its key for `delay`."""
        ...

    async def bury(self, number: int, error: str) -> None:
        """Count an attempt and keep the message as dead; later ones of its key go on."""
        ...


class Queue(Protocol):
    """The outbox as its relay sees it: the messages of one service."""

    service: str

    def claim(
        self, limit: int, without: Collection[str] = ()
    ) -> AbstractAsyncContextManager[Claim]:
        """Take up to `limit` due messages, none to the destinations in `without`.

        No other relay gets messages of their keys meanwhile.
        """
        ...

    async def depth(self) -> tuple[int, float]:
        """Return how many messages wait, and the age of the oldest in seconds; dead ones not."""
        ...

    async def dead(self, limit: int = 100) -> Sequence[Queued]:
        """Return up to `limit` (1 to 1000) dead messages, oldest first."""
        ...

    async def revive(self, numbers: Sequence[int]) -> int:
        """Give dead messages to the relay again, with no attempts counted; return how many."""
        ...


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What deleting a user removed."""

    conversations: int
    sessions: int


class Transaction:
    """A transaction that the caller's block holds open; it ends with the block.

    Given by `store.transaction()` and `store.once(...)`, and to handlers that ask for the type.
    Pass it as `session=` to `bus.publish`, and the message is sent if and when it commits. When a
    method has raised, the block's end raises too (RolledBack), even if the block went on.
    """

    conversations: Conversations
    sessions: Sessions

    @property
    def session(self) -> AsyncSession:
        """A SQLAlchemy session in this transaction, for tables of your own.

        It is flushed before the commit. Its exceptions are SQLAlchemy's, and a cancellation does
        reach the driver; the transaction is then rolled back. Raises Unsupported in memory.
        """
        raise Unsupported("a store in memory has no SQLAlchemy session")

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user, together with what else is done here.

        Publish the audit event with this transaction, and there is never one without the other.
        """
        raise NotImplementedError

    async def enqueue(self, outgoing: Outgoing) -> None:
        """Put an encoded message into the outbox; `bus.publish(..., session=...)` does this."""
        raise NotImplementedError


class Backend(Protocol):
    """A database behind a store."""

    @property
    def conversations(self) -> Conversations:
        """Return the turns."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Return the sessions."""
        ...

    @property
    def queue(self) -> Queue:
        """Return the outbox."""
        ...

    async def open(self) -> None:
        """Connect and check that the schema is what this version needs."""
        ...

    async def close(self) -> None:
        """Finish the writes under way, then disconnect. Idempotent."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Return a transaction that commits when its block ends, and not if it raises."""
        ...

    def once(
        self, consumer: str, message_id: str
    ) -> AbstractAsyncContextManager[Transaction | None]:
        """Return a transaction that remembers the message, or None if it is remembered already.

        While another transaction handles the same message this one waits for it to end.
        """
        ...

    async def forget(self, user_id: str) -> Forgotten:
        """Delete every turn and session of the user."""
        ...

    def export(self, user_id: str) -> AsyncIterator[dict[str, object]]:
        """Iterate over all that is kept of the user, as JSON-safe objects."""
        ...

    async def sweep(self, *, inbox: timedelta, dead: timedelta) -> int:
        """Delete inbox entries and dead messages older than these; return how many."""
        ...

    async def ping(self) -> None:
        """Make a round trip. Raises Unavailable."""
        ...
