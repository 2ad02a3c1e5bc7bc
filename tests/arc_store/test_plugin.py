"""A store on a running bus: by type in handlers, with outbox and inbox, and with its writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from arc_bus import Bus
from arc_bus.contracts.events import (
    AgentResponse,
    ConversationEvent,
    ConversationMetadata,
    ConversationPerformance,
    UserMessage,
)
from arc_bus.contracts.events import Conversation as ConversationKey
from arc_bus.errors import ConfigError
from arc_bus.message import Message
from arc_bus.policy import Retry
from arc_store import (
    Conversation,
    ConversationWriter,
    HashingEmbedder,
    RelayPolicy,
    Store,
    Transaction,
)

KINDS = ("psycopg", "asyncpg", "sqlite", "memory")
TOPIC = "persistent://arc/events/conversations"
MakeUrl = Callable[[str], str]


class Ping(msgspec.Struct, frozen=True):
    number: int


class Seen:
    """What a handler got, to be waited for."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._changed = asyncio.Event()

    def add(self, item: object) -> None:
        self.all.append(item)
        self._changed.set()

    async def wait_for(self, count: int) -> list[Any]:
        async with asyncio.timeout(20):
            while len(self.all) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.all


@asynccontextmanager
async def running(*plugins: object, **handlers: Any) -> AsyncIterator[Bus]:
    bus = Bus(service="test", routes={"": "memory://"}, plugins=plugins)
    for pattern, handler in handlers.items():
        bus.subscribe(f"agent.voice.{pattern}", handler, group="g", retry=Retry(first=0.0))
    async with bus:
        yield bus


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_gets_the_store_by_type(make_url: MakeUrl, kind: str) -> None:
    seen = Seen()

    async def on_ping(ping: Ping, store: Store) -> None:
        await store.conversations.save(
            Conversation(
                user_id="u", turn_index=ping.number, user_input="hello", agent_response="hi"
            )
        )
        seen.add(ping.number)

    store = Store(make_url(kind))
    async with running(store, ping=on_ping) as bus:
        await bus.publish("agent.voice.ping", Ping(3))
        await seen.wait_for(1)
        [turn] = (await store.conversations.history(user_id="u")).items
        assert turn.turn_index == 3
        checks = {check.name: check for check in await bus.health()}
        assert checks["store"].ok


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_published_with_a_transaction_is_sent_when_it_commits(
    make_url: MakeUrl, kind: str
) -> None:
    seen = Seen()

    async def on_pong(pong: Ping) -> None:
        seen.add(pong.number)

    store = Store(make_url(kind), relay=RelayPolicy(poll=30.0))
    async with running(store, pong=on_pong) as bus:
        with pytest.raises(ValueError, match="stop"):  # noqa: PT012 - the block raises
            async with store.transaction() as transaction:
                await bus.publish("agent.voice.pong", Ping(1), session=transaction)
                raise ValueError("stop")
        async with store.transaction() as transaction:
            await bus.publish("agent.voice.pong", Ping(2), session=transaction)
            assert seen.all == []
        assert await seen.wait_for(1) == [2]


@pytest.mark.parametrize("kind", ["psycopg", "asyncpg", "sqlite"])
async def test_a_sqlalchemy_session_of_ones_own_carries_messages_too(
    make_url: MakeUrl, kind: str
) -> None:
    seen = Seen()

    async def on_pong(pong: Ping) -> None:
        seen.add(pong.number)

    store = Store(make_url(kind), relay=RelayPolicy(poll=0.05))
    async with running(store, pong=on_pong) as bus:
        assert store.engine is not None
        async with AsyncSession(store.engine) as session:
            await bus.publish("agent.voice.pong", Ping(1), session=session)
            await session.rollback()
            await bus.publish("agent.voice.pong", Ping(2), session=session)
            await session.commit()
        assert await seen.wait_for(1) == [2]
        async with store.engine.begin() as connection:
            await bus.publish("agent.voice.pong", Ping(3), session=connection)
        assert await seen.wait_for(2) == [2, 3]


async def test_a_session_of_another_kind_is_refused() -> None:
    async with running(Store("memory://")) as bus:
        with pytest.raises(ConfigError, match="Transaction"):
            await bus.publish("agent.voice.pong", Ping(1), session=object())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handlers_transaction_commits_with_it_and_rolls_back_with_it(
    make_url: MakeUrl, kind: str
) -> None:
    seen = Seen()
    attempts = 0

    async def on_ping(ping: Ping, transaction: Transaction, bus: Bus) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.conversations.save(
            Conversation(user_id="u", turn_index=attempts, user_input="hello", agent_response="hi")
        )
        await bus.publish("agent.voice.pong", Ping(attempts), session=transaction)
        if attempts == 1:
            raise ValueError("first")

    async def on_pong(pong: Ping) -> None:
        seen.add(pong.number)

    store = Store(make_url(kind))
    async with running(store, ping=on_ping, pong=on_pong) as bus:
        await bus.publish("agent.voice.ping", Ping(0))
        assert await seen.wait_for(1) == [2]
        turns = (await store.conversations.history(user_id="u")).items
        assert [turn.turn_index for turn in turns] == [2]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_group_named_by_once_has_each_effect_once(make_url: MakeUrl, kind: str) -> None:
    handled, pongs = Seen(), Seen()

    async def on_ping(ping: Ping, transaction: Transaction, bus: Bus) -> None:
        await bus.publish("agent.voice.pong", Ping(ping.number), session=transaction)
        handled.add(ping.number)

    async def on_pong(pong: Ping) -> None:
        pongs.add(pong.number)

    bus = Bus(service="test", routes={"": "memory://"}, plugins=[Store(make_url(kind))])
    bus.subscribe("agent.voice.ping", on_ping, group="g", once=True)
    bus.subscribe("agent.voice.pong", on_pong, group="g")
    async with bus:
        for _ in range(3):
            await bus.publish("agent.voice.ping", Ping(1), message_id="same")
        await bus.publish("agent.voice.ping", Ping(2), message_id="other")
        await pongs.wait_for(2)
    assert sorted(handled.all) == [1, 2]
    assert sorted(pongs.all) == [1, 2]


async def test_a_failed_attempt_of_once_leaves_nothing_and_is_tried_again(
    make_url: MakeUrl,
) -> None:
    pongs, attempts = Seen(), Seen()

    async def on_ping(ping: Ping, transaction: Transaction, bus: Bus, message: Message) -> None:
        await bus.publish("agent.voice.pong", Ping(message.attempt), session=transaction)
        attempts.add(message.attempt)
        if message.attempt == 1:
            raise ValueError("first")

    async def on_pong(pong: Ping) -> None:
        pongs.add(pong.number)

    for kind in KINDS:
        pongs, attempts = Seen(), Seen()
        bus = Bus(service="test", routes={"": "memory://"}, plugins=[Store(make_url(kind))])
        bus.subscribe("agent.voice.ping", on_ping, group="g", once=True, retry=Retry(first=0.0))
        bus.subscribe("agent.voice.pong", on_pong, group="g")
        async with bus:
            await bus.publish("agent.voice.ping", Ping(1))
            await pongs.wait_for(1)
        assert (attempts.all, pongs.all) == ([1, 2], [2])


async def test_the_engine_is_there_to_be_listened_to(make_url: MakeUrl) -> None:
    seen = Seen()

    async def on_ping(ping: Ping, engine: AsyncEngine) -> None:
        seen.add(engine)

    store = Store(make_url("sqlite"))
    async with running(store, ping=on_ping) as bus:
        await bus.publish("agent.voice.ping", Ping(1))
        assert await seen.wait_for(1) == [store.engine]


def event(index: int, text: str = "what is the weather like", **key: Any) -> ConversationEvent:
    told = {"id": "conv-1", "session_id": "s", "user_id": "u", "agent_id": "a", **key}
    return ConversationEvent(
        conversation=ConversationKey(turn_index=index, **told),
        user_message=UserMessage(text=text, stt_model="ears", stt_latency_ms=12.6),
        agent_response=AgentResponse(text="sunny", llm_model="large", llm_tokens_used=5),
        performance=ConversationPerformance(
            total_latency_ms=100,
            stt_latency_ms=12.6,
            llm_latency_ms=80,
            tts_latency_ms=5,
            network_overhead_ms=2,
        ),
        metadata=ConversationMetadata(
            room_name="room", participant_sid="P", trace_id="t", environment="test", region="r"
        ),
    )


async def stored(store: Store, count: int) -> list[Conversation]:
    async with asyncio.timeout(20):
        while True:
            page = await store.conversations.history(user_id="u", limit=1000)
            if len(page.items) >= count:
                return list(page.items)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
async def test_conversation_events_are_stored_in_batches_with_their_vectors(
    make_url: MakeUrl, kind: str
) -> None:
    store = Store(make_url(kind), embedder=HashingEmbedder())
    async with running(store) as bus:
        await ConversationWriter(store).subscribe(bus)
        for index in range(100):
            await bus.publish(TOPIC, event(index), message_id=f"event-{index}")
        await bus.publish(TOPIC, event(0), message_id="event-0")
        turns = await stored(store, 100)
        assert {turn.turn_index for turn in turns} == set(range(100))
        first = next(turn for turn in turns if turn.turn_index == 0)
        assert (first.room_name, first.llm_tokens_used, first.stt_latency_ms) == ("room", 5, 13)
        assert first.context_used == {"conversation_id": "conv-1"}
        [match] = await store.find_similar_conversations("the weather", user_id="u", limit=1)
        assert match.turn.user_input == "what is the weather like"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_event_that_cannot_be_stored_fails_alone(make_url: MakeUrl, kind: str) -> None:
    store = Store(make_url(kind))
    dead = Seen()

    async def on_dead(body: bytes) -> None:
        dead.add(body)

    bus = Bus(service="test", routes={"": "memory://"}, plugins=[store])
    ConversationWriter(store).subscribe(bus)
    bus.subscribe(f"{TOPIC}-dlq", on_dead, group="dead")
    async with bus:
        await bus.publish(TOPIC, event(0))
        await bus.publish(TOPIC, event(1, text=" "))
        await bus.publish(TOPIC, event(2, text="nul \x00"))
        await bus.publish(TOPIC, event(3, user_id="u" * 300), key="u")
        await bus.publish(TOPIC, event(4))
        turns = await stored(store, 2)
        assert {turn.turn_index for turn in turns} == {0, 4}
        await dead.wait_for(3)
