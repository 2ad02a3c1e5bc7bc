"""The writer stores what comes together in one transaction, and lets each writer wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from arc_bus.contracts.events import AgentResponse, ConversationEvent, UserMessage
from arc_bus.contracts.events import Conversation as ConversationKey
from arc_bus.envelope import Envelope
from arc_store import (
    Conflict,
    Conversation,
    ConversationWriter,
    HashingEmbedder,
    Store,
    Unavailable,
)
from arc_store.writer import turn_of

Turn = Callable[..., Conversation]


async def test_turns_that_come_together_are_one_batch(
    store: Store, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    save_many = store.conversations.save_many

    async def counted(turns: Sequence[Conversation]) -> int:
        sizes.append(len(turns))
        return await save_many(turns)

    monkeypatch.setattr(store.conversations, "save_many", counted)
    writer = ConversationWriter(store, batch=10, wait=0.01)
    await asyncio.gather(*(writer.write(turn(index)) for index in range(25)))
    assert sizes == [10, 10, 5]
    assert len((await store.conversations.history(user_id="user-1")).items) == 25


async def test_a_write_returns_only_after_its_commit(sql_store: Store, turn: Turn) -> None:
    writer = ConversationWriter(sql_store, wait=0.01)
    async with sql_store.transaction() as transaction:
        await transaction.conversations.save(turn(1))
        writing = asyncio.create_task(writer.write(turn(1, llm_model="late")))
        done, _ = await asyncio.wait({writing}, timeout=0.1)
        assert not done
    await writing
    [stored] = (await sql_store.conversations.history(user_id="user-1")).items
    assert stored.llm_model == "late"


async def test_a_turn_that_the_database_refuses_fails_alone(store: Store, turn: Turn) -> None:
    known = turn(0)
    await store.conversations.save(known)
    writer = ConversationWriter(store)
    turns = [turn(1), turn(2, id=known.id), turn(3)]
    outcomes = await asyncio.gather(*(writer.write(t) for t in turns), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, type(None)]
    stored = (await store.conversations.history(user_id="user-1")).items
    assert sorted(t.turn_index for t in stored) == [0, 1, 3]


async def test_while_the_database_is_away_every_writer_hears_of_it(
    store: Store, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(turns: Sequence[Conversation]) -> int:
        raise Unavailable("away")

    monkeypatch.setattr(store.conversations, "save_many", away)
    writer = ConversationWriter(store)
    outcomes = await asyncio.gather(
        *(writer.write(turn(index)) for index in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3


async def test_a_cancelled_writer_does_not_stop_its_neighbours(store: Store, turn: Turn) -> None:
    writer = ConversationWriter(store, wait=0.05)
    tasks = [asyncio.create_task(writer.write(turn(index))) for index in range(3)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] is outcomes[2] is None
    assert isinstance(outcomes[1], asyncio.CancelledError)


class Broken(HashingEmbedder):
    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise OSError("the model is not there")


async def test_what_an_embedder_raises_reaches_the_handler(turn: Turn) -> None:
    async with Store("memory://", embedder=Broken()) as store:
        with pytest.raises(OSError, match="model"):
            await ConversationWriter(store).write(turn())


def event(message_id: str, timestamp: str) -> Envelope[ConversationEvent]:
    payload = ConversationEvent(
        conversation=ConversationKey(
            id="conv-1", session_id="s", user_id="u", agent_id="a", turn_index=2
        ),
        user_message=UserMessage(text="hello"),
        agent_response=AgentResponse(text="hi"),
    )
    return Envelope(
        destination="d",
        payload=payload,
        timestamp=timestamp,
        trace_id="t",
        service="sherlock",
        message_id=message_id,
    )


def test_a_turns_id_is_its_events_and_stays_the_same_when_redelivered() -> None:
    id = "01a208f6-85fb-765d-8bf1-e159a64160e7"
    assert str(turn_of(event(id, "2026-01-01T00:00:00Z"), id).id) == id
    old = event("", "2026-01-01T00:00:00Z")
    assert turn_of(old, "sha256:1").id == turn_of(old, "sha256:1").id
    assert turn_of(old, "sha256:1").id != turn_of(old, "sha256:2").id


@pytest.mark.parametrize(
    ("timestamp", "micros"),
    [("2026-01-01T00:00:00Z", 0), ("2026-01-01T00:00:00.123456789Z", 123456)],
)
def test_a_turn_was_made_when_its_event_was(timestamp: str, micros: int) -> None:
    moment = turn_of(event("", timestamp), "x").created_at
    assert (moment.year, moment.microsecond) == (2026, micros)


@pytest.mark.parametrize("timestamp", ["yesterday", "2026-01-01T00:00:00", ""])
def test_a_time_that_cannot_be_read_is_now(timestamp: str) -> None:
    assert turn_of(event("", timestamp), "x").created_at.tzinfo is not None
