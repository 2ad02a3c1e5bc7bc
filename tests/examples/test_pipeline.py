"""What the pipeline keeps of a session does not hang on the order in which its events come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from arc_bus import Envelope
from arc_bus.contracts import AgentResponse, ConversationEvent, SessionStarted, UserMessage
from arc_bus.contracts.events import Conversation as Told
from arc_store import Conversation, HashingEmbedder, Store
from voice import measures, pipeline


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store("memory://", embedder=HashingEmbedder()) as store:
        yield store


@pytest.fixture
def room() -> measures.Room:
    room = measures.Room("user-123")
    room.started = datetime.now(UTC) - timedelta(minutes=5)
    return room


def a_turn(room: measures.Room) -> ConversationEvent:
    told = Told(
        id="conv-1",
        session_id=room.session_id,
        user_id=room.user_id,
        agent_id=measures.AGENT,
        turn_index=0,
    )
    return ConversationEvent(
        conversation=told,
        user_message=UserMessage(text="What's the weather like today?"),
        agent_response=AgentResponse(text="Sunny and mild."),
    )


async def test_a_start_that_comes_after_the_end_is_dated_when_it_was_told(
    store: Store, room: measures.Room
) -> None:
    over = measures.session_metrics(room, [])
    started = Envelope(
        destination="agent.voice.session.started",
        payload=SessionStarted(
            user_id=room.user_id,
            session_id=room.session_id,
            room_name=room.name,
            room_sid=room.sid,
            participant_sid=room.participant_sid,
        ),
        timestamp=room.started.isoformat(),
        trace_id="",
        service="arc-scarlett-voice",
        message_id="",
    )

    await pipeline.open_session(started, store)
    await pipeline.close_session(over, store)

    kept = await store.sessions.get(UUID(room.session_id))
    assert kept is not None
    assert (kept.status, kept.duration_seconds) == ("ended", 300)


async def test_a_turn_saved_while_its_session_ends_is_counted(
    store: Store, room: measures.Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = store.conversations.save

    async def after_the_end(turn: Conversation) -> bool:
        await pipeline.close_session(measures.session_metrics(room, []), store)
        return await save(turn)

    monkeypatch.setattr(store.conversations, "save", after_the_end)

    await pipeline.keep_turn(a_turn(room), store)

    kept = await store.sessions.get(UUID(room.session_id))
    assert kept is not None
    assert (kept.status, kept.total_turns) == ("ended", 1)
