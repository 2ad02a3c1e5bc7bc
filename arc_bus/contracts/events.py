"""What is kept of conversations, of services' lives and of LiveKit's webhooks."""

from __future__ import annotations

from typing import Literal, TypeAlias

from arc_bus.contracts.fields import (
    Amount,
    Count,
    Fraction,
    JsonObject,
    Moment,
    Payload,
    Text,
    always,
)
from arc_bus.contracts.registry import Contract, field_of


class Conversation(Payload, frozen=True, kw_only=True):
    """Which turn this is; `turn_index` counts the turns of a session from 0."""

    id: Text
    session_id: Text
    user_id: Text
    agent_id: Text
    turn_index: Count


class UserMessage(Payload, frozen=True, kw_only=True):
    """What the user said, and how it was recognised."""

    text: Text
    audio_duration_ms: Amount | None = None
    stt_model: str | None = None
    stt_confidence: Fraction | None = None
    stt_latency_ms: Amount | None = None


class AgentResponse(Payload, frozen=True, kw_only=True):
    """What the agent answered, and how it was made."""

    text: Text
    llm_model: str | None = None
    llm_tokens_used: Count | None = None
    llm_latency_ms: Amount | None = None
    tts_model: str | None = None
    tts_audio_duration_ms: Amount | None = None
    tts_latency_ms: Amount | None = None


class ConversationContext(Payload, frozen=True, kw_only=True):
    """What the agent knew when it answered."""

    previous_turn_count: Count
    context_tokens_used: Count
    tools_invoked: list[str]
    embedding_vector_id: str


class ConversationPerformance(Payload, frozen=True, kw_only=True):
    """Where the time of the turn went, in milliseconds."""

    total_latency_ms: Amount
    stt_latency_ms: Amount
    llm_latency_ms: Amount
    tts_latency_ms: Amount
    network_overhead_ms: Amount


class ConversationMetadata(Payload, frozen=True, kw_only=True):
    """Where the turn took place. `trace_id` is that of the turn, not of the publishing."""

    room_name: str
    participant_sid: str
    trace_id: str
    environment: str
    region: str


class ConversationEvent(Payload, frozen=True, kw_only=True):
    """One completed turn, kept 30 days in the order of its user.

    Example:
        ConversationEvent(
            conversation=Conversation(id="conv-1", session_id="session-1", user_id="user-123",
                agent_id="arc-scarlett-voice", turn_index=0),
            user_message=UserMessage(text="What's the weather like today?"),
            agent_response=AgentResponse(text="Sunny and mild."))
    """

    schema: Literal["conversation-v1"] = always("conversation-v1")
    conversation: Conversation
    user_message: UserMessage
    agent_response: AgentResponse
    context: ConversationContext | None = None
    performance: ConversationPerformance | None = None
    metadata: ConversationMetadata | None = None


LifecycleEventType: TypeAlias = Literal[
    "service_started",
    "service_stopped",
    "service_crashed",
    "service_health_degraded",
    "service_recovered",
]
"""What can happen to a service."""


class ServiceInstance(Payload, frozen=True, kw_only=True):
    """One running copy of a service; `name` is the envelope's `service`."""

    name: Text
    instance_id: Text
    version: str
    node: str


class LifecycleDetails(Payload, frozen=True, kw_only=True):
    """What happened to a service, why, and from which state into which."""

    type: Text
    reason: str
    previous_state: str
    current_state: str


class LifecycleHealth(Payload, frozen=True, kw_only=True):
    """Limits of the instance, as its platform writes them, and whether what it needs is well."""

    cpu_limit: str | int | float
    memory_limit: str | int | float
    dependencies_healthy: bool


class AgentLifecycle(Payload, frozen=True, kw_only=True):
    """A service started, stopped, crashed, degraded or recovered; kept 90 days.

    On this topic the wire's `service` is the object: the envelope's `service` is its `name`.

    Example:
        AgentLifecycle(event_type="service_started",
            service=ServiceInstance(name="arc-sherlock-brain", instance_id="brain-1",
                version="1.4.0", node="node-a"),
            event_details=LifecycleDetails(type="startup", reason="deployment",
                previous_state="stopped", current_state="running"))
    """

    schema: Literal["agent-lifecycle-v1"] = always("agent-lifecycle-v1")
    event_type: LifecycleEventType
    service: ServiceInstance
    event_details: LifecycleDetails
    health: LifecycleHealth | None = None


class WebhookMetadata(Payload, frozen=True, kw_only=True):
    """When the webhook came, and how long it took to be passed on."""

    webhook_id: Text
    received_at: Moment
    processing_latency_ms: Amount


class LivekitWebhook(Payload, frozen=True, kw_only=True):
    """A webhook of LiveKit, its own object kept as it came; kept 7 days in the order of its room.

    Example:
        LivekitWebhook(event="participant_joined",
            webhook_payload={"event": "participant_joined", "room": {"name": "daily-standup"}},
            metadata=WebhookMetadata(webhook_id="EV_1", received_at="2026-01-01T00:00:00Z",
                processing_latency_ms=3))
    """

    schema: Literal["livekit-webhook-v1"] = always("livekit-webhook-v1")
    event: Text
    webhook_payload: JsonObject
    metadata: WebhookMetadata


def _room_name(payload: object) -> str | None:
    """Return the room's name of a webhook; egress and ingress events keep it elsewhere.

    None where LiveKit named no room: such an event has no order to keep. The forms are those of
    LiveKit's WebhookEvent message in protobuf's JSON mapping.
    """
    webhook = field_of(payload, "webhook_payload")
    for group, name in (("room", "name"), ("egressInfo", "roomName"), ("ingressInfo", "roomName")):
        room = field_of(field_of(webhook, group), name)
        if isinstance(room, str) and room:
            return room
    return None


CONTRACTS = (
    Contract(
        destination="persistent://arc/events/conversations",
        payload=ConversationEvent,
        event_type="conversation_turn_completed",
        key="conversation.user_id",
        schema="conversation-v1",
        partitions=16,
        retention_days=30,
    ),
    Contract(
        destination="persistent://arc/events/agent-lifecycle",
        payload=AgentLifecycle,
        event_types=(
            "service_started",
            "service_stopped",
            "service_crashed",
            "service_health_degraded",
            "service_recovered",
        ),
        key="service.name",
        schema="agent-lifecycle-v1",
        partitions=4,
        retention_days=90,
    ),
    Contract(
        destination="persistent://arc/events/livekit-webhooks",
        payload=LivekitWebhook,
        key=_room_name,
        schema="livekit-webhook-v1",
        partitions=4,
        retention_days=7,
    ),
)
"""Durable topics of the namespace `events`."""
