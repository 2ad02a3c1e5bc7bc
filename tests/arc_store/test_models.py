"""Every rule of the contracts is refused by the model, naming the field, and by the database."""

from __future__ import annotations

import array
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert

from arc_bus.errors import PayloadError
from arc_store import Conversation, InvalidField, Session, Store, StoreError
from arc_store.translate import translated

TURN: dict[str, Any] = {"user_id": "u", "user_input": "hello", "agent_response": "hi"}
SESSION: dict[str, Any] = {"user_id": "u", "room_name": "r"}
ONES = [1.0] * 1536

# What both the model and the database refuse.
BAD_TURNS: list[tuple[str, Any]] = [
    ("user_input", ""),
    ("user_input", " \t\n"),
    ("agent_response", "  "),
    ("turn_index", -1),
    ("stt_latency_ms", -1),
    ("llm_latency_ms", -5),
    ("tts_latency_ms", -1),
    ("total_latency_ms", -1),
    ("user_id", "x" * 256),
    ("agent_id", "x" * 256),
    ("room_name", "x" * 256),
    ("session_id", "x" * 256),
    ("llm_model", "x" * 101),
    ("stt_model", "x" * 101),
    ("tts_model", "x" * 101),
    ("user_id", None),
    ("user_input", None),
    ("agent_response", None),
    ("turn_index", None),
    ("agent_id", None),
    ("created_at", None),
]
BAD_SESSIONS: list[tuple[str, Any]] = [
    ("room_name", " "),
    ("user_id", "\n"),
    ("duration_seconds", -1),
    ("connection_quality", "splendid"),
    ("status", "paused"),
    ("room_name", "x" * 256),
    ("room_sid", "x" * 256),
    ("participant_sid", "x" * 256),
    ("user_identity", "x" * 256),
    ("user_id", "x" * 256),
    ("agent_id", "x" * 256),
    ("room_name", None),
    ("user_id", None),
    ("agent_id", None),
    ("session_start", None),
    ("status", None),
    ("connection_quality", None),
    ("total_turns", None),
    ("total_user_messages", None),
    ("total_agent_messages", None),
    ("error_count", None),
    ("avg_latency_ms", None),
    ("p95_latency_ms", None),
    ("p99_latency_ms", None),
]
# What the database refuses in its own words (tests/arc_store/test_rules.py), or cannot.
WORSE_TURNS: list[tuple[str, Any]] = [
    ("user_input", "a\x00b"),
    ("user_input", "half \ud800"),
    ("user_input", 7),
    ("turn_index", 2**31),
    ("turn_index", True),
    ("turn_index", 1.5),
    ("llm_tokens_used", -1),
    ("embedding", ONES[:-1]),
    ("embedding", [*ONES, 1.0]),
    ("embedding", [0.0] * 1536),
    ("embedding", [math.nan, *ONES[1:]]),
    ("embedding", [math.inf, *ONES[1:]]),
    ("embedding", [1e-30] * 1536),
    ("embedding", [1e30] * 1536),
    ("embedding", "text"),
    ("embedding", 5),
    ("embedding", ["1.0"] * 1536),
    ("context_used", []),
    ("context_used", {"a": math.nan}),
    ("context_used", {"a\x00": 1}),
    ("context_used", {"a": ["\x00"]}),
    ("context_used", {1: 1}),
    ("context_used", {"a": object()}),
    ("context_used", {"a": 10**400}),
    ("created_at", datetime(2026, 1, 1)),
    ("created_at", "2026-01-01"),
    ("id", "no uuid"),
]


@pytest.mark.parametrize(("field", "value"), BAD_TURNS + WORSE_TURNS)
def test_a_turn_refuses_a_bad_value_by_the_fields_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidField, match=f"^{field}: ") as refused:
        Conversation(**{**TURN, field: value})
    assert refused.value.field == field
    assert isinstance(refused.value, PayloadError)
    good = Conversation(**TURN)
    with pytest.raises(InvalidField, match=field):
        setattr(good, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *BAD_SESSIONS,
        ("avg_packet_loss_percent", 1000.0),
        ("avg_packet_loss_percent", math.nan),
        ("avg_jitter_ms", -1),
        ("error_count", -1),
        ("recording_id", "x"),
        ("error_message", "\x00"),
    ],
)
def test_a_session_refuses_a_bad_value_by_the_fields_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidField, match=f"^{field}: "):
        Session(**{**SESSION, field: value})


async def refused_by_database(store: Store, model: type[Any], good: Any, bad: Any) -> None:
    """Insert `good`, which must be taken, and then `bad`, which must be refused for its rule."""
    assert store.engine is not None
    async with store.engine.connect() as connection:
        await connection.execute(insert(model.__table__), good)
        await connection.rollback()
        with pytest.raises(InvalidField) as refused, translated():
            await connection.execute(insert(model.__table__), {**good, **bad})
    [field] = bad
    # A varchar that is too long is the one refusal in which PostgreSQL names no column.
    assert refused.value.field == field or (
        refused.value.field == "value" and "too long" in str(refused.value)
    )


async def test_the_database_refuses_what_the_models_refuse(sql_store: Store) -> None:
    turn = Conversation(**TURN).values()
    for field, value in BAD_TURNS:
        await refused_by_database(sql_store, Conversation, turn, {field: value})
    session = Session(**SESSION).values()
    for field, value in BAD_SESSIONS:
        await refused_by_database(sql_store, Session, session, {field: value})


async def test_the_database_fills_in_the_published_defaults(sql_store: Store) -> None:
    assert sql_store.engine is not None
    turn, session = Conversation(**TURN), Session(**SESSION)
    async with sql_store.engine.begin() as connection:
        await connection.execute(insert(Conversation), {"id": turn.id, **TURN})
        await connection.execute(insert(Session), {"id": session.id, **SESSION})
    stored = await sql_store.conversations.get(turn.id)
    assert stored is not None
    assert (stored.agent_id, stored.turn_index) == ("arc-scarlett-voice", 0)
    assert abs((datetime.now(UTC) - stored.created_at).total_seconds()) < 60
    kept = await sql_store.sessions.get(session.id)
    assert kept is not None
    assert (kept.status, kept.connection_quality, kept.error_count) == ("active", "good", 0)


async def test_updated_at_is_kept_by_a_trigger(sql_store: Store) -> None:
    from sqlalchemy import update

    turn = Conversation(**TURN)
    await sql_store.conversations.save(turn)
    before = await sql_store.conversations.get(turn.id)
    assert sql_store.engine is not None
    async with sql_store.engine.begin() as connection:
        await connection.execute(
            update(Conversation).where(Conversation.id == turn.id).values(llm_model="other")
        )
    after = await sql_store.conversations.get(turn.id)
    assert before is not None
    assert after is not None
    assert after.updated_at > before.updated_at


def test_to_dict_is_json_and_from_dict_reads_it_back() -> None:
    turn = Conversation(**TURN, embedding=ONES, embedding_model="m", context_used={"a": [1]})
    plain = json.loads(json.dumps(turn.to_dict(embedding=True)))
    assert Conversation.from_dict(plain).to_dict(embedding=True) == turn.to_dict(embedding=True)
    assert "embedding" not in turn.to_dict()
    assert plain["created_at"].endswith("Z")
    session = Session(**SESSION, avg_packet_loss_percent=0.5)
    assert Session.from_dict(json.loads(json.dumps(session.to_dict()))).id == session.id


def test_from_dict_ignores_unknown_names_and_names_a_missing_one() -> None:
    assert Conversation.from_dict({**TURN, "mood": "good"}).user_id == "u"
    with pytest.raises(InvalidField, match="agent_response: is missing"):
        Conversation.from_dict({"user_id": "u", "user_input": "x"})
    with pytest.raises(InvalidField, match="created_at"):
        Conversation.from_dict({**TURN, "created_at": "yesterday"})


def test_repr_tells_no_words_of_a_user() -> None:
    turn = Conversation(user_id="u", user_input="my secret", agent_response="your secret")
    assert "secret" not in repr(turn)


@pytest.mark.parametrize(
    "vector",
    [array.array("f", ONES), array.array("d", ONES), tuple(ONES), [1] * 1536],
)
def test_vectors_come_as_lists_tuples_or_buffers(vector: Any) -> None:
    assert list(Conversation(**TURN, embedding=vector).embedding or ()) == ONES


def test_ids_are_made_in_the_order_of_time() -> None:
    ids = [Conversation(**TURN).id for _ in range(3)]
    assert [id.version for id in ids] == [7, 7, 7]
    assert len(set(ids)) == 3


async def test_a_refused_row_tells_no_words_of_a_user(
    sql_store: Store, turn: Callable[..., Conversation]
) -> None:
    first = turn(user_input="my secret")
    await sql_store.conversations.save(first)
    with pytest.raises(StoreError) as refused:
        await sql_store.conversations.save(turn(9, id=first.id, user_input="my secret"))
    chain: BaseException | None = refused.value
    while chain is not None:
        assert "secret" not in str(chain)
        chain = chain.__cause__
