"""What `sessions` does is the same in every database and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from arc_store import Conversation, InvalidField, NotFound, Session, Store

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
Turn = Callable[..., Conversation]


def session(**fields: object) -> Session:
    told: dict[str, object] = {"user_id": "user-1", "room_name": "room", "session_start": MOMENT}
    return Session(**{**told, **fields})  # type: ignore[arg-type]


async def test_a_started_session_comes_back_whole(store: Store) -> None:
    started = session(
        room_sid="RM_1",
        participant_sid="PA_1",
        user_identity="alice",
        avg_packet_loss_percent=1.25,
        avg_jitter_ms=4,
        connection_quality="fair",
        recording_id=uuid4(),
        recording_url="s3://calls/1",
    )
    assert await store.sessions.start(started) is True
    found = await store.sessions.get(started.id)
    assert found is not None
    assert found.to_dict() | {"updated_at": None} == started.to_dict()


async def test_starting_a_session_twice_changes_nothing(store: Store) -> None:
    started = session()
    await store.sessions.start(started)
    assert await store.sessions.start(session(id=started.id, room_name="other")) is False
    found = await store.sessions.get(started.id)
    assert found is not None
    assert found.room_name == "room"


async def test_recording_turns_counts_them_and_their_latencies(store: Store, turn: Turn) -> None:
    started = session()
    await store.sessions.start(started)
    for index in range(20):
        counted = await store.sessions.record_turn(
            turn(index, session_id=str(started.id), total_latency_ms=10 * (index + 1))
        )
    assert counted.total_turns == counted.total_user_messages == 20
    assert (counted.avg_latency_ms, counted.p95_latency_ms, counted.p99_latency_ms) == (
        105,
        190,
        200,
    )
    assert len((await store.conversations.history(session_id=str(started.id))).items) == 20


async def test_recording_a_turn_twice_counts_it_once(store: Store, turn: Turn) -> None:
    started = session()
    await store.sessions.start(started)
    again = turn(session_id=str(started.id), total_latency_ms=7)
    await store.sessions.record_turn(again)
    counted = await store.sessions.record_turn(again)
    assert (counted.total_turns, counted.avg_latency_ms) == (1, 7)


async def test_turns_recorded_at_the_same_time_are_all_counted(store: Store, turn: Turn) -> None:
    started = session()
    await store.sessions.start(started)
    await asyncio.gather(
        *(store.sessions.record_turn(turn(i, session_id=str(started.id))) for i in range(8))
    )
    found = await store.sessions.get(started.id)
    assert found is not None
    assert found.total_turns == 8


async def test_a_turn_of_an_unknown_session_is_not_stored(store: Store, turn: Turn) -> None:
    unknown = turn(session_id=str(uuid4()))
    with pytest.raises(NotFound, match="start it"):
        await store.sessions.record_turn(unknown)
    assert await store.conversations.get(unknown.id) is None
    for odd in (None, "session-1"):
        with pytest.raises(InvalidField, match="session_id"):
            await store.sessions.record_turn(turn(session_id=odd))


async def test_ending_a_session_computes_its_duration(store: Store, turn: Turn) -> None:
    started = session()
    await store.sessions.start(started)
    await store.conversations.save(turn(session_id=str(started.id), total_latency_ms=30))
    ended = await store.sessions.end(
        started.id,
        session_end=MOMENT + timedelta(seconds=90),
        connection_quality="poor",
        avg_packet_loss_percent=2.5,
        error_count=1,
    )
    assert (ended.status, ended.duration_seconds, ended.session_end) == (
        "ended",
        90,
        MOMENT + timedelta(seconds=90),
    )
    assert (ended.total_turns, ended.avg_latency_ms, ended.connection_quality) == (1, 30, "poor")
    again = await store.sessions.end(started.id, status="error", error_message="lost")
    assert (again.status, again.duration_seconds, again.error_message) == ("error", 90, "lost")


async def test_a_session_ends_now_unless_said_otherwise(store: Store) -> None:
    started = session(session_start=datetime.now(UTC) - timedelta(seconds=100))
    await store.sessions.start(started)
    ended = await store.sessions.end(started.id)
    assert ended.duration_seconds is not None
    assert 99 <= ended.duration_seconds <= 160


async def test_an_end_that_cannot_be_is_refused_and_changes_nothing(store: Store) -> None:
    started = session()
    await store.sessions.start(started)
    with pytest.raises(NotFound):
        await store.sessions.end(uuid4())
    with pytest.raises(InvalidField, match="session_end"):
        await store.sessions.end(started.id, session_end=MOMENT - timedelta(seconds=1))
    with pytest.raises(InvalidField, match="status"):
        await store.sessions.end(started.id, status="gone")
    with pytest.raises(InvalidField, match="mood"):
        await store.sessions.end(started.id, mood="good")  # type: ignore[call-arg]
    found = await store.sessions.get(started.id)
    assert found is not None
    assert found.status == "active"


async def test_active_sessions_are_those_that_have_not_ended(store: Store) -> None:
    first = session()
    second = session(session_start=MOMENT + timedelta(hours=1))
    others = [session(user_id="user-2"), session(agent_id="other"), session()]
    for one in (first, second, *others):
        await store.sessions.start(one)
    await store.sessions.end(others[2].id)
    mine = await store.sessions.active(user_id="user-1", agent_id="arc-scarlett-voice")
    assert [s.id for s in mine] == [second.id, first.id]
    assert len(await store.sessions.active()) == 4
    assert len(await store.sessions.active(limit=2)) == 2
