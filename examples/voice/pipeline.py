"""arc-analytics-pipeline: keeps what was said, how sessions went, and who read whose data.

Every message may come twice, and events of one session by different routes in any order. So every
effect is safe to repeat: rows are found by their natural keys, and a session's counts are computed
from its turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import msgspec

from arc_bus import Bus, Envelope, Retry
from arc_bus.contracts import ConversationEvent, SessionMetrics, SessionStarted
from arc_pulsar.options import PulsarSubscription, SubscriptionType
from arc_store import Conversation, NotFound, Session, Store
from arc_telemetry import Telemetry
from voice import places
from voice.ledger import Ledger
from voice.service import serve

log = logging.getLogger(__name__)

bus = Bus(
    "arc-analytics-pipeline",
    routes=places.routes(),
    plugins=[Telemetry(), places.store(), Ledger(places.folder())],
)


@bus.subscribe("agent.voice.session.started", group="session_tracker")
async def open_session(event: Envelope[SessionStarted], store: Store) -> None:
    started = event.payload
    await store.sessions.start(
        Session(
            id=UUID(started.session_id),
            user_id=started.user_id,
            agent_id=started.agent_id,
            room_name=started.room_name,
            room_sid=started.room_sid,
            participant_sid=started.participant_sid,
            session_start=datetime.fromisoformat(event.timestamp),
        )
    )


def by_user(event: object) -> str:
    assert isinstance(event, ConversationEvent)
    return event.conversation.user_id


@bus.subscribe(
    "persistent://arc/events/conversations",
    group="analytics-pipeline",
    order_by=by_user,
    retry=Retry(attempts=4),
)
async def keep_turn(event: ConversationEvent, store: Store) -> None:
    assert store.embedder is not None
    [embedding] = await store.embedder.embed([event.user_message.text])
    turn = Conversation(
        user_id=event.conversation.user_id,
        agent_id=event.conversation.agent_id,
        session_id=event.conversation.session_id,
        turn_index=event.conversation.turn_index,
        user_input=event.user_message.text,
        agent_response=event.agent_response.text,
        embedding=embedding,
        embedding_model=store.embedder.model,
        context_used=msgspec.structs.asdict(event.context) if event.context else None,
        llm_model=event.agent_response.llm_model,
        llm_tokens_used=event.agent_response.llm_tokens_used,
    )
    try:
        await store.sessions.record_turn(turn)
    except NotFound:
        # The session's start travels by core NATS, which may be slower, and may lose it. Its
        # metrics come by Pulsar in any case, and count this turn.
        await store.conversations.save(turn)
        with suppress(NotFound):  # Started, perhaps even ended, while the turn was being saved.
            await store.sessions.record_turn(turn)


@bus.subscribe("persistent://arc/analytics/session-metrics", group="analytics-pipeline")
async def close_session(event: SessionMetrics, store: Store) -> None:
    measured = event.session
    session = Session(
        id=UUID(measured.id),
        user_id=measured.user_id,
        agent_id=measured.agent_id,
        room_name=measured.room_name,
        room_sid=measured.room_sid,
        session_start=datetime.fromisoformat(measured.started_at),
    )
    await store.sessions.start(session)
    await store.sessions.end(
        session.id,
        session_end=datetime.fromisoformat(measured.ended_at),
        connection_quality=event.connection_quality.quality_rating,
    )


@bus.subscribe("agent.voice.track.*", group="session_tracker")
@bus.subscribe("agent.voice.session.ended", group="session_tracker")
async def follow(event: Envelope[dict[str, object]]) -> None:
    log.info("%s in room %s", event.event_type, event.payload["room_name"])


@bus.subscribe("persistent://arc/audit/logs", group="audit-export")
@bus.subscribe(
    "persistent://arc/audit/compliance-events",
    group="audit-export",
    options=PulsarSubscription(type=SubscriptionType.FAILOVER),
)
def export(event: Envelope[dict[str, object]]) -> None:
    """Append to the export; a plain function, so the bus runs it in a thread."""
    line = {"message_id": event.message_id, "user_id": event.key, **event.payload}
    with (places.folder() / f"audit.{event.service}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    asyncio.run(serve(bus))
