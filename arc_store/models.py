"""Conversation and Session: one turn of a voice conversation, and the session it was part of.

Columns, defaults, keys, checks and indexes are those of the contracts (schema `agents`). Ours on
top: `Conversation.embedding_model`, and the session in a turn's unique key. A model refuses a bad
value when it is set, naming the field; the database refuses it too, because bulk writes and other
programs do not pass through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Index, Integer, Numeric, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, validates

from arc_store import fields
from arc_store.base import (
    Base,
    JsonObject,
    UtcDateTime,
    at_least_zero,
    direction,
    index,
    known_values,
    mind_types,
    moment_default,
    new_id,
    not_blank,
    to_moment,
    to_uuid,
    utc_moment,
)
from arc_store.embedding import Embedding, to_floats

DEFAULT_AGENT = "arc-scarlett-voice"
QUALITIES = ("excellent", "good", "fair", "poor")
STATUSES = ("active", "ended", "error")

_LATENCIES = ("stt_latency_ms", "llm_latency_ms", "tts_latency_ms", "total_latency_ms")
_TURN_LENGTHS = {
    "user_id": 255,
    "agent_id": 255,
    "room_name": 255,
    "session_id": 255,
    "llm_model": 100,
    "stt_model": 100,
    "tts_model": 100,
    "embedding_model": 255,
}


class Conversation(Base, kw_only=True, eq=False):
    """One turn: what a user said and what an agent answered.

    The natural key is (user_id, agent_id, session_id, turn_index), where no session equals no
    session: saving the same key again changes the row instead of adding one. `embedding` is read
    only when asked for, and None otherwise; `embedding_model` names what made it, and vectors of
    different models are never compared. Latencies are whole milliseconds.
    """

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint(
            "user_id",
            "agent_id",
            "session_id",
            "turn_index",
            name="uq_conversations_turn",
            postgresql_nulls_not_distinct=True,
        ).ddl_if(dialect="postgresql"),
        # SQLite has no NULLS NOT DISTINCT; char(0) can be no session's name, for `fields.text`
        # refuses it.
        Index(
            "uq_conversations_turn_sqlite",
            "user_id",
            "agent_id",
            text("coalesce(session_id, char(0))"),
            "turn_index",
            unique=True,
        ).ddl_if(dialect="sqlite"),
        *at_least_zero("conversations", "turn_index", *_LATENCIES),
        *not_blank("conversations", "user_input", "agent_response"),
        *direction("conversations", "embedding"),
        index("conversations", "user_id"),
        index("conversations", "session_id"),
        index("conversations", "room_name"),
        index("conversations", "created_at desc"),
        index("conversations", "user_id", "created_at desc"),
        index("conversations", "session_id", "turn_index"),
    )
    json_forms: ClassVar[Mapping[str, Any]] = {"id": to_uuid, "created_at": to_moment}
    bulky: ClassVar[frozenset[str]] = frozenset({"embedding"})

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    user_id: Mapped[str] = mapped_column(String(255))
    agent_id: Mapped[str] = mapped_column(
        String(255), default=DEFAULT_AGENT, server_default=DEFAULT_AGENT
    )
    room_name: Mapped[str | None] = mapped_column(String(255), default=None)
    session_id: Mapped[str | None] = mapped_column(String(255), default=None)
    turn_index: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    user_input: Mapped[str] = mapped_column(Text, repr=False)
    agent_response: Mapped[str] = mapped_column(Text, repr=False)
    embedding: Mapped[Sequence[float] | None] = mapped_column(
        Embedding, deferred=True, deferred_raiseload=True, default=None, repr=False
    )
    embedding_model: Mapped[str | None] = mapped_column(String(255), default=None)
    context_used: Mapped[dict[str, object] | None] = mapped_column(
        JsonObject, default=None, repr=False
    )
    llm_model: Mapped[str | None] = mapped_column(String(100), default=None, repr=False)
    llm_tokens_used: Mapped[int | None] = mapped_column(Integer, default=None, repr=False)
    stt_model: Mapped[str | None] = mapped_column(String(100), default=None, repr=False)
    tts_model: Mapped[str | None] = mapped_column(String(100), default=None, repr=False)
    stt_latency_ms: Mapped[int | None] = mapped_column(Integer, default=None, repr=False)
    llm_latency_ms: Mapped[int | None] = mapped_column(Integer, default=None, repr=False)
    tts_latency_ms: Mapped[int | None] = mapped_column(Integer, default=None, repr=False)
    total_latency_ms: Mapped[int | None] = mapped_column(Integer, default=None, repr=False)
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, default_factory=utc_moment, server_default=moment_default
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, init=False, server_default=moment_default, repr=False
    )

    @validates("user_id", "agent_id")
    def _check_key(self, field: str, value: object) -> str:
        return fields.text(field, value, most=_TURN_LENGTHS[field])

    @validates("room_name", "session_id", "llm_model", "stt_model", "tts_model", "embedding_model")
    def _check_name(self, field: str, value: object) -> str | None:
        return None if value is None else self._check_key(field, value)

    @validates("user_input", "agent_response")
    def _check_text(self, field: str, value: object) -> str:
        return fields.text(field, value, blank=False)

    @validates("turn_index")
    def _check_turn_index(self, field: str, value: object) -> int:
        return fields.count(field, value)

    @validates("llm_tokens_used", *_LATENCIES)
    def _check_count(self, field: str, value: object) -> int | None:
        return None if value is None else fields.count(field, value)

    @validates("embedding")
    def _check_embedding(self, field: str, value: object) -> Sequence[float] | None:
        return None if value is None else to_floats(field, value)

    @validates("context_used")
    def _check_context(self, field: str, value: object) -> dict[str, object] | None:
        return None if value is None else fields.json_object(field, value)

    @validates("id")
    def _check_id(self, field: str, value: object) -> UUID:
        return to_uuid(field, value)

    @validates("created_at")
    def _check_moment(self, field: str, value: object) -> datetime:
        return fields.moment(field, value)

    def to_dict(self, *, embedding: bool = False) -> dict[str, object]:
        """Return what JSON can carry; the vector only with `embedding=True`."""
        return self.dump(bulky=embedding)


_SESSION_LENGTHS: dict[str, int] = dict.fromkeys(
    ("room_name", "room_sid", "participant_sid", "user_id", "user_identity", "agent_id"), 255
)
_COUNTS = (
    "total_turns",
    "total_user_messages",
    "total_agent_messages",
    "error_count",
    "avg_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
)


class Session(Base, kw_only=True, eq=False):
    """One voice session of one user with one agent, from joining the room to leaving it.

    A turn belongs to it when the turn's `session_id` is `str(session.id)`; the counts and the
    latencies (whole milliseconds) are computed from those turns. Durations are whole seconds.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        *at_least_zero("sessions", "duration_seconds"),
        *not_blank("sessions", "room_name", "user_id"),
        known_values("sessions", "connection_quality", QUALITIES),
        known_values("sessions", "status", STATUSES),
        index("sessions", "user_id"),
        index("sessions", "room_name"),
        index("sessions", "status"),
        index("sessions", "session_start desc"),
        index("sessions", "user_id", "session_start desc"),
    )
    json_forms: ClassVar[Mapping[str, Any]] = {
        "id": to_uuid,
        "recording_id": to_uuid,
        "session_start": to_moment,
        "session_end": to_moment,
        "created_at": to_moment,
    }

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    room_name: Mapped[str] = mapped_column(String(255))
    room_sid: Mapped[str | None] = mapped_column(String(255), default=None)
    participant_sid: Mapped[str | None] = mapped_column(String(255), default=None)
    user_id: Mapped[str] = mapped_column(String(255))
    user_identity: Mapped[str | None] = mapped_column(String(255), default=None, repr=False)
    agent_id: Mapped[str] = mapped_column(
        String(255), default=DEFAULT_AGENT, server_default=DEFAULT_AGENT
    )
    session_start: Mapped[datetime] = mapped_column(
        UtcDateTime, default_factory=utc_moment, server_default=moment_default
    )
    session_end: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    duration_seconds: Mapped[int | None] = mapped_column(Integer, default=None)
    total_turns: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    total_user_messages: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    total_agent_messages: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    error_count: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    avg_latency_ms: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    p95_latency_ms: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    p99_latency_ms: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    avg_packet_loss_percent: Mapped[float | None] = mapped_column(
        Numeric(5, 2, asdecimal=False), default=None
    )
    avg_jitter_ms: Mapped[int | None] = mapped_column(Integer, default=None)
    connection_quality: Mapped[str] = mapped_column(
        String(20), default="good", server_default="good"
    )
    status: Mapped[str] = mapped_column(String(50), default="active", server_default="active")
    error_message: Mapped[str | None] = mapped_column(Text, default=None, repr=False)
    recording_id: Mapped[UUID | None] = mapped_column(default=None)
    recording_url: Mapped[str | None] = mapped_column(Text, default=None, repr=False)
    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime, default_factory=utc_moment, server_default=moment_default, repr=False
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, init=False, server_default=moment_default, repr=False
    )

    @validates("room_name", "user_id")
    def _check_key(self, field: str, value: object) -> str:
        return fields.text(field, value, most=_SESSION_LENGTHS[field], blank=False)

    @validates("agent_id")
    def _check_agent(self, field: str, value: object) -> str:
        return fields.text(field, value, most=_SESSION_LENGTHS[field])

    @validates("room_sid", "participant_sid", "user_identity", "error_message", "recording_url")
    def _check_text(self, field: str, value: object) -> str | None:
        if value is None:
            return None
        return fields.text(field, value, most=_SESSION_LENGTHS.get(field))

    @validates("duration_seconds", "avg_jitter_ms", *_COUNTS)
    def _check_count(self, field: str, value: object) -> int | None:
        optional = value is None and field not in _COUNTS
        return None if optional else fields.count(field, value)

    @validates("avg_packet_loss_percent")
    def _check_percent(self, field: str, value: object) -> float | None:
        return None if value is None else fields.percent(field, value)

    @validates("connection_quality")
    def _check_quality(self, field: str, value: object) -> str:
        return fields.one_of(field, value, QUALITIES)

    @validates("status")
    def _check_status(self, field: str, value: object) -> str:
        return fields.one_of(field, value, STATUSES)

    @validates("session_start", "created_at")
    def _check_moment(self, field: str, value: object) -> datetime:
        return fields.moment(field, value)

    @validates("session_end")
    def _check_end(self, field: str, value: object) -> datetime | None:
        return None if value is None else fields.moment(field, value)

    @validates("id", "recording_id")
    def _check_id(self, field: str, value: object) -> UUID | None:
        return None if value is None and field != "id" else to_uuid(field, value)

    def to_dict(self) -> dict[str, object]:
        """Return what JSON can carry."""
        return self.dump(bulky=True)


for _model in (Conversation, Session):
    mind_types(_model)
