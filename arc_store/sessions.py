"""SqlSessions: the sessions in PostgreSQL or SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Unpack, cast
from uuid import UUID

from sqlalchemy import Select, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.base import to_uuid, utc_moment
from arc_store.conversations import loaded
from arc_store.database import Run
from arc_store.errors import InvalidField, NotFound
from arc_store.latency import latency_of
from arc_store.models import Conversation, Session
from arc_store.page import check_limit
from arc_store.repositories import Outcome
from arc_store.upsert import TURNS, Upsert, to_rows

SESSIONS = cast("Table", Session.__table__)


class SqlSessions:
    """`Sessions` by SQL; see there for what each method promises."""

    def __init__(self, run: Run, upsert: Upsert, dialect: str, *, model: str | None = None) -> None:
        """Work on what `run` gives, saving turns by `upsert`."""
        self._run = run
        self._upsert = upsert
        self._model = model
        insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
        self._insert = insert(SESSIONS).on_conflict_do_nothing().returning(SESSIONS.c.id)

    async def start(self, session: Session) -> bool:
        """Insert the session unless it is there."""
        values = session.values()

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(self._insert, values)).first() is not None

        return await self._run(work)

    async def record_turn(self, turn: Conversation) -> Session:
        """Save the turn and count it."""
        id = session_of(turn)
        rows = to_rows([turn], self._model)

        async def work(connection: AsyncConnection) -> Session:
            session = await _locked(connection, id)
            await self._upsert(connection, rows)
            return await _write(connection, session, await _counted(connection, id))

        return await self._run(work, atomic=True)

    async def end(self, id: UUID, **outcome: Unpack[Outcome]) -> Session:
        """Mark the session as ended."""

        async def work(connection: AsyncConnection) -> Session:
            session = await _locked(connection, id)
            counted = await _counted(connection, id)
            return await _write(connection, session, {**counted, **ended(session, outcome)})

        return await self._run(work, atomic=True)

    async def get(self, id: UUID) -> Session | None:
        """Return the session or None."""
        found = await self._fetch(select(SESSIONS).where(SESSIONS.c.id == id))
        return found[0] if found else None

    async def active(
        self, *, user_id: str | None = None, agent_id: str | None = None, limit: int = 100
    ) -> Sequence[Session]:
        """Return sessions that have not ended, the newest first."""
        query = select(SESSIONS).where(SESSIONS.c.status == "active")
        if user_id is not None:
            query = query.where(SESSIONS.c.user_id == user_id)
        if agent_id is not None:
            query = query.where(SESSIONS.c.agent_id == agent_id)
        query = query.order_by(SESSIONS.c.session_start.desc(), SESSIONS.c.id.desc())
        return await self._fetch(query.limit(check_limit(limit)))

    async def _fetch(self, query: Select[Any]) -> list[Session]:
        async def work(connection: AsyncConnection) -> list[Session]:
            rows = (await connection.execute(query)).mappings().all()
            return [loaded(Session, row) for row in rows]

        return await self._run(work)


async def _locked(connection: AsyncConnection, id: UUID) -> Session:
    """Return the session, locked so that two turns are not counted over each other."""
    query = select(SESSIONS).where(SESSIONS.c.id == id).with_for_update()
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise unknown_session(id)
    return loaded(Session, row)


async def _counted(connection: AsyncConnection, id: UUID) -> dict[str, object]:
    query = select(TURNS.c.total_latency_ms).where(TURNS.c.session_id == str(id))
    return counts([row[0] for row in await connection.execute(query)])


async def _write(
    connection: AsyncConnection, session: Session, changes: dict[str, object]
) -> Session:
    """Set the changed columns, after the model has checked them."""
    for name, value in changes.items():
        setattr(session, name, value)
    checked = {name: getattr(session, name) for name in changes}
    statement = update(SESSIONS).where(SESSIONS.c.id == session.id).returning(SESSIONS)
    changed = await connection.execute(statement.values(**checked, updated_at=utc_moment()))
    return loaded(Session, changed.mappings().one())


def session_of(turn: Conversation) -> UUID:
    """Return the id of the turn's session. Raises InvalidField if it names none."""
    if turn.session_id is None:
        raise InvalidField("session_id", "must name the session that the turn is recorded in")
    return to_uuid("session_id", turn.session_id)


def unknown_session(id: UUID) -> NotFound:
    """Return the error for a session that was never started."""
    return NotFound(f"no session {id}; start it with store.sessions.start(Session(id=...))")


def counts(latencies: Sequence[int | None]) -> dict[str, object]:
    """Return a session's columns that follow from the latencies of its turns, one for each turn."""
    known = latency_of([value for value in latencies if value is not None])
    turns = len(latencies)
    return {
        "total_turns": turns,
        "total_user_messages": turns,
        "total_agent_messages": turns,
        "avg_latency_ms": known.avg,
        "p95_latency_ms": known.p95,
        "p99_latency_ms": known.p99,
    }


def ended(session: Session, outcome: Outcome) -> dict[str, object]:
    """Return the columns that ending `session` sets. Raises InvalidField for an unknown name."""
    unknown = set(outcome) - set(Outcome.__annotations__)
    if unknown:
        raise InvalidField(min(unknown), f"is not one of {', '.join(Outcome.__annotations__)}")
    already = session.status != "active"
    told = outcome.get("session_end") or session.session_end
    if told is not None and told < session.session_start:
        raise InvalidField("session_end", "is before session_start")
    # Another machine's clock may have been ahead of ours when the session started.
    end: datetime = told or max(utc_moment(), session.session_start)
    seconds = round((end - session.session_start).total_seconds())
    status = session.status if already else "ended"
    return {"status": status, **outcome, "session_end": end, "duration_seconds": seconds}
