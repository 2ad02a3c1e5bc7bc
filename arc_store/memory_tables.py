"""Tables: the rows of a store in memory, and what a transaction did to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from arc_store.base import utc_moment
from arc_store.errors import Conflict
from arc_store.models import Session
from arc_store.repositories import Queued
from arc_store.upsert import merged, natural_key

Row: TypeAlias = dict[str, Any]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the outbox: whose, since when, and from when on it may be sent."""

    service: str
    queued: Queued
    created_at: datetime
    available_at: datetime


class Tables(msgspec.Struct):
    """Rows by their keys. A row is never changed in place, only replaced."""

    turns: dict[UUID, Row] = msgspec.field(default_factory=dict[UUID, Row])
    keys: dict[tuple[object, ...], UUID] = msgspec.field(
        default_factory=dict[tuple[object, ...], UUID]
    )
    sessions: dict[UUID, Row] = msgspec.field(default_factory=dict[UUID, Row])
    outbox: dict[int, Waiting] = msgspec.field(default_factory=dict[int, Waiting])
    inbox: dict[tuple[str, str], datetime] = msgspec.field(
        default_factory=dict[tuple[str, str], datetime]
    )

    def copy(self) -> Tables:
        """Return tables of the same rows."""
        return Tables(**{name: dict(getattr(self, name)) for name in self.__struct_fields__})

    def apply(self, before: Tables, after: Tables) -> None:
        """Make the changes that lead from `before` to `after`, and no others."""
        for name in self.__struct_fields__:
            mine, old, new = (getattr(tables, name) for tables in (self, before, after))
            for key, row in new.items():
                if old.get(key) is not row:
                    mine[key] = row
            for key in old.keys() - new.keys():
                mine.pop(key, None)

    def save(self, given: Row) -> bool:
        """Insert or change a turn; return whether anything changed. Raises Conflict."""
        key = natural_key(given)
        known = self.keys.get(key)
        if known is None:
            if given["id"] in self.turns:
                raise Conflict(f"a turn with the id {given['id']} is there already")
            self.turns[given["id"]] = {**given, "updated_at": utc_moment()}
            self.keys[key] = given["id"]
            return True
        stored = self.turns[known]
        after = {**merged(stored, given), "updated_at": stored["updated_at"]}
        if after == stored:
            return False
        self.turns[known] = {**after, "updated_at": utc_moment()}
        return True

    def write_session(self, session: Session) -> None:
        """Insert or replace a session."""
        self.sessions[session.id] = {**session.values(), "updated_at": utc_moment()}

    def remove_turn(self, id: UUID) -> None:
        """Delete a turn."""
        self.keys.pop(natural_key(self.turns.pop(id)))
