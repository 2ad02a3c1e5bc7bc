"""arc-sherlock-brain: answers what users ask, knowing what they asked before.

It is asked by request and reply; what the handler returns is the reply. Before it answers, it
records the turn on Pulsar: a turn that was spoken is a turn that is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from arc_bus import Bus, Retry
from arc_bus.agent import AgentBus
from arc_bus.contracts import (
    Action,
    Actor,
    AgentResponse,
    BrainMetadata,
    BrainPerformance,
    BrainRequest,
    BrainResponse,
    ComplianceEvent,
    Conversation,
    ConversationContext,
    ConversationEvent,
    DataAccessed,
    UserMessage,
)
from arc_store import Match, Store
from arc_telemetry import Telemetry
from voice import places, reasoning
from voice.ledger import Ledger
from voice.service import instance, serve

bus = Bus(
    "arc-sherlock-brain",
    routes=places.routes(),
    plugins=[Telemetry(), places.store(), Ledger(places.folder())],
)
agent = AgentBus(bus)


@bus.subscribe(
    "agent.brain.request",
    group="sherlock_workers",
    concurrency=32,
    order_by="session_id",
    retry=Retry(attempts=4),
)
async def reason(request: BrainRequest, store: Store) -> BrainResponse:
    began = time.perf_counter()
    earlier = await store.find_similar_conversations(
        request.user_input, user_id=request.user_id, limit=3, max_distance=0.8
    )
    await agent.produce_compliance_event(reading(earlier), user_id=request.user_id)
    thinking = time.perf_counter()
    answer = reasoning.think(request.user_input, [match.turn.user_input for match in earlier])
    now = time.perf_counter()
    response = BrainResponse(
        request_id=request.request_id,
        user_id=request.user_id,
        session_id=request.session_id,
        conversation_id=request.conversation_id,
        turn_index=request.turn_index,
        agent_response=answer,
        metadata=BrainMetadata(
            llm_model=reasoning.MODEL,
            tokens_used=len(answer.split()),
            reasoning_steps=1,
            tools_called=["similar_turns"],
            confidence_score=0.9 if earlier else 0.6,
        ),
        performance=BrainPerformance(
            llm_latency_ms=round(1000 * (now - thinking), 3),
            total_processing_ms=round(1000 * (now - began), 3),
        ),
    )
    await agent.produce_conversation_event(turn(request, response, earlier))
    return response


def turn(
    request: BrainRequest, response: BrainResponse, earlier: Sequence[Match]
) -> ConversationEvent:
    """Return the turn as the platform keeps it."""
    assert response.metadata is not None
    assert response.performance is not None
    return ConversationEvent(
        conversation=Conversation(
            id=request.conversation_id,
            session_id=request.session_id,
            user_id=request.user_id,
            agent_id="arc-scarlett-voice",
            turn_index=request.turn_index,
        ),
        user_message=UserMessage(text=request.user_input),
        agent_response=AgentResponse(
            text=response.agent_response,
            llm_model=response.metadata.llm_model,
            llm_tokens_used=response.metadata.tokens_used,
            llm_latency_ms=response.performance.llm_latency_ms,
        ),
        context=ConversationContext(
            previous_turn_count=len(earlier),
            context_tokens_used=sum(len(match.turn.user_input.split()) for match in earlier),
            tools_invoked=response.metadata.tools_called,
            embedding_vector_id=str(earlier[0].turn.id) if earlier else "",
        ),
    )


def reading(earlier: Sequence[Match]) -> ComplianceEvent:
    """Return what the auditors want to know: whose words were read, and what for."""
    return ComplianceEvent(
        event_type="user_data_accessed",
        actor=Actor(
            type="service",
            service_name=bus.service,
            instance_id=instance(),
            authenticated_as=bus.service,
        ),
        action=Action(
            type="read",
            operation="SELECT",
            resource="agents.conversations",
            resource_id="",
            reason="context for an answer",
        ),
        data_accessed=DataAccessed(
            tables=["agents.conversations"],
            row_count=len(earlier),
            columns=["user_input", "agent_response"],
            pii_fields=["user_input"],
        ),
    )


if __name__ == "__main__":
    asyncio.run(serve(bus))
