"""ConversationWriter: stores the conversation events of the bus, many in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from arc_bus.contracts.events import ConversationEvent
from arc_bus.envelope import Envelope
from arc_bus.message import Message
from arc_store.base import utc_moment
from arc_store.embedding import Embedder
from arc_store.errors import StoreError, Unavailable
from arc_store.inbox import identify
from arc_store.models import Conversation
from arc_store.store import Store

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.subscribing import Handle

TOPIC = "persistent://arc/events/conversations"


class ConversationWriter:
    """Saves the conversation events of a bus, in batches.

        bus = Bus(service="search-indexer", routes=..., plugins=[store])
        ConversationWriter(store).subscribe(bus)

    A message is acknowledged only after the commit that holds its turn. Turns are upserts on their
    natural key, so a redelivery changes nothing. If the store has an embedder, the user's words
    get a vector. A turn that the database refuses fails alone; its neighbours are stored.
    """

    def __init__(
        self, store: Store, *, group: str = "arc-store", batch: int = 64, wait: float = 0.02
    ) -> None:
        """Write to `store` up to `batch` turns at once, or what came within `wait` seconds."""
        self._store = store
        self._group = group
        self._batch = batch
        self._wait = wait
        self._waiting: list[tuple[Conversation, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushes: set[asyncio.Task[None]] = set()

    def subscribe(self, bus: Bus) -> Handle:
        """Subscribe to the conversation topic of `bus`, started or not."""
        return bus.subscribe(TOPIC, self.on_event, group=self._group, concurrency=4 * self._batch)

    async def on_event(self, event: Envelope[ConversationEvent], message: Message) -> None:
        """Return when the event's turn is committed. Raises InvalidField, Unavailable."""
        await self.write(turn_of(event, identify(message)))

    async def write(self, turn: Conversation) -> None:
        """Return when the turn is committed, together with others that come at the same time."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append((turn, stored))
        if len(self._waiting) >= self._batch:
            self._flush_soon()
        elif self._timer is None:
            self._timer = loop.call_later(self._wait, self._flush_soon)
        await stored

    def _flush_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._flush(batch))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush(self, batch: Sequence[tuple[Conversation, asyncio.Future[None]]]) -> None:
        try:
            await self._embed([turn for turn, _ in batch])
            await self._store.conversations.save_many([turn for turn, _ in batch])
        except StoreError as error:
            if len(batch) > 1 and not isinstance(error, Unavailable):
                await asyncio.gather(*(self._flush([one]) for one in batch))
            else:
                _fail(batch, error)
        except Exception as error:  # an embedder may raise anything; each handler hears of it
            _fail(batch, error)
        else:
            for _, stored in batch:
                if not stored.done():
                    stored.set_result(None)

    async def _embed(self, turns: Sequence[Conversation]) -> None:
        embedder: Embedder | None = self._store.embedder
        bare = [turn for turn in turns if turn.embedding is None]
        if embedder is None or not bare:
            return
        vectors = await embedder.embed([turn.user_input for turn in bare])
        for turn, vector in zip(bare, vectors, strict=True):
            turn.embedding, turn.embedding_model = vector, embedder.model


def _fail(batch: Sequence[tuple[Conversation, asyncio.Future[None]]], error: Exception) -> None:
    for _, stored in batch:
        if not stored.done():
            stored.set_exception(error)


def turn_of(event: Envelope[ConversationEvent], identity: str) -> Conversation:
    """Return the turn that an event tells of.

    Its id is the event's message id, or follows from `identity` where that is no UUID, so that a
    redelivery has the same; the conversation's own id, which all its turns share, is kept in
    `context_used`. Latencies become whole milliseconds. Raises InvalidField.
    """
    told = event.payload
    user, agent, performance = told.user_message, told.agent_response, told.performance
    context: dict[str, Any] = {} if told.context is None else msgspec.structs.asdict(told.context)
    return Conversation(
        id=_row_id(event.message_id, identity),
        user_id=told.conversation.user_id,
        agent_id=told.conversation.agent_id,
        session_id=told.conversation.session_id,
        turn_index=told.conversation.turn_index,
        room_name=told.metadata.room_name if told.metadata else None,
        user_input=user.text,
        agent_response=agent.text,
        context_used={**context, "conversation_id": told.conversation.id},
        llm_model=agent.llm_model,
        llm_tokens_used=agent.llm_tokens_used,
        stt_model=user.stt_model,
        tts_model=agent.tts_model,
        stt_latency_ms=_whole(user.stt_latency_ms),
        llm_latency_ms=_whole(agent.llm_latency_ms),
        tts_latency_ms=_whole(agent.tts_latency_ms),
        total_latency_ms=_whole(performance.total_latency_ms if performance else None),
        created_at=_moment(event.timestamp),
    )


def _row_id(message_id: str, identity: str) -> UUID:
    try:
        return UUID(message_id)
    except ValueError:
        return uuid5(NAMESPACE_OID, identity)


def _whole(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds)


def _moment(timestamp: str) -> datetime:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return utc_moment()
    return moment if moment.tzinfo else utc_moment()
