"""MemoryConversations and MemorySessions: the repositories over rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, Unpack
from uuid import UUID

from arc_store.conversations import loaded, page_of
from arc_store.errors import Conflict, InvalidField, StoreError
from arc_store.lite_search import rank
from arc_store.memory_tables import Row, Tables
from arc_store.models import Conversation, Session
from arc_store.page import Page, Position, check_limit, decode_cursor
from arc_store.repositories import Outcome
from arc_store.search import Filters, Match, Search
from arc_store.sessions import counts, ended, session_of, unknown_session
from arc_store.upsert import to_rows

Open: TypeAlias = Callable[[], Tables]
Failed: TypeAlias = Callable[[StoreError], None]


class MemoryConversations:
    """`Conversations` in memory; see there for what each method promises."""

    def __init__(self, tables: Open, model: str | None, failed: Failed) -> None:
        """Work on what `tables` gives at the moment of a call; `failed` hears of refused rows."""
        self._tables = tables
        self._model = model
        self._failed = failed

    async def save(self, turn: Conversation) -> bool:
        """Insert or change one turn."""
        return bool(await self.save_many([turn]))

    async def save_many(self, turns: Sequence[Conversation]) -> int:
        """Insert or change all turns or none."""
        tables = self._tables()
        before = tables.copy()
        try:
            return sum(tables.save(row) for row in to_rows(turns, self._model))
        except Conflict as error:
            tables.apply(tables.copy(), before)
            self._failed(error)
            raise

    async def get(self, id: UUID, *, embedding: bool = False) -> Conversation | None:
        """Return the turn or None."""
        row = self._tables().turns.get(id)
        return None if row is None else loaded(Conversation, row if embedding else plain(row))

    async def history(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Conversation]:
        """Return a page of turns, the newest first."""
        wanted = {"user_id": user_id, "agent_id": agent_id, "session_id": session_id}
        if all(value is None for value in wanted.values()):
            raise InvalidField(
                "user_id", f"give one of {', '.join(wanted)}: history is never of all"
            )
        rows = matching(self._tables().turns.values(), wanted)
        rows.sort(key=_position, reverse=True)
        if after is not None:
            end = decode_cursor(after)
            rows = [row for row in rows if _position(row) < end]
        found = [loaded(Conversation, plain(row)) for row in rows[: check_limit(limit) + 1]]
        return page_of(found, limit)

    async def similar(
        self, embedding: Sequence[float], **filters: Unpack[Filters]
    ) -> Sequence[Match]:
        """Return the nearest turns, the nearest first."""
        filters.setdefault("model", self._model)
        search = Search(embedding=embedding, **filters)
        wanted = {name: getattr(search, name) for name in ("user_id", "agent_id", "session_id")}
        rows = [
            row
            for row in matching(self._tables().turns.values(), wanted)
            if row["embedding"] is not None
            and row["embedding_model"] == search.model
            and (search.since is None or row["created_at"] >= search.since)
            and (search.until is None or row["created_at"] < search.until)
        ]
        return rank(rows, search)


class MemorySessions:
    """`Sessions` in memory; see there for what each method promises."""

    def __init__(self, tables: Open, conversations: MemoryConversations, failed: Failed) -> None:
        """Work on what `tables` gives at the moment of a call; `failed` hears of refusals."""
        self._tables = tables
        self._conversations = conversations
        self._failed = failed

    async def start(self, session: Session) -> bool:
        """Insert the session unless it is there."""
        tables = self._tables()
        if session.id in tables.sessions:
            return False
        tables.write_session(session)
        return True

    async def record_turn(self, turn: Conversation) -> Session:
        """Save the turn and count it."""
        session = self._known(session_of(turn))
        await self._conversations.save(turn)
        return self._write(session, self._counted(session))

    async def end(self, id: UUID, **outcome: Unpack[Outcome]) -> Session:
        """Mark the session as ended."""
        session = self._known(id)
        return self._write(session, {**self._counted(session), **ended(session, outcome)})

    async def get(self, id: UUID) -> Session | None:
        """Return the session or None."""
        row = self._tables().sessions.get(id)
        return None if row is None else loaded(Session, row)

    async def active(
        self, *, user_id: str | None = None, agent_id: str | None = None, limit: int = 100
    ) -> Sequence[Session]:
        """Return sessions that have not ended, the newest first."""
        wanted = {"user_id": user_id, "agent_id": agent_id, "status": "active"}
        rows = matching(self._tables().sessions.values(), wanted)
        rows.sort(key=lambda row: (row["session_start"], row["id"]), reverse=True)
        return [loaded(Session, row) for row in rows[: check_limit(limit)]]

    def _known(self, id: UUID) -> Session:
        row = self._tables().sessions.get(id)
        if row is None:
            error = unknown_session(id)
            self._failed(error)
            raise error
        return loaded(Session, row)

    def _counted(self, session: Session) -> dict[str, object]:
        rows = matching(self._tables().turns.values(), {"session_id": str(session.id)})
        return counts([row["total_latency_ms"] for row in rows])

    def _write(self, session: Session, changes: dict[str, object]) -> Session:
        for name, value in changes.items():
            setattr(session, name, value)
        tables = self._tables()
        tables.write_session(session)
        return loaded(Session, tables.sessions[session.id])


def plain(row: Row) -> Row:
    """Return the row without its vector."""
    return {name: value for name, value in row.items() if name != "embedding"}


def matching(rows: Iterable[Row], wanted: Mapping[str, str | None]) -> list[Row]:
    """Return the rows that have every value that is given."""
    given = [(name, value) for name, value in wanted.items() if value is not None]
    return [row for row in rows if all(row[name] == value for name, value in given)]


def _position(row: Row) -> Position:
    return Position(row["created_at"], row["id"])
