"""AgentBus: the A.R.C. platform's own verbs on a `Bus`, each bound to its contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypedDict, Unpack

import msgspec

from arc_bus.contracts import BrainError, BrainRequest, BrainResponse, Heartbeat, ServiceError
from arc_bus.errors import DecodeError, FieldClash, RemoteError
from arc_bus.heartbeat import Metrics, beat_forever, process_metrics
from arc_bus.policy import Retry, SubscriptionSettings

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.contracts import (
        AgentLifecycle,
        AgentPerformance,
        ComplianceEvent,
        ConversationEvent,
        LivekitWebhook,
        SessionEnded,
        SessionMetrics,
        SessionStarted,
        Status,
        TrackPublished,
        TrackUnpublished,
        TtsCompleted,
        TtsRequest,
    )
    from arc_bus.handler import Function
    from arc_bus.subscribing import Handle

TOPIC_RETRY = Retry(attempts=4)
"""Contracts: "a message that has failed 3 redeliveries goes to <topic>-dlq"."""


class PublishSettings(TypedDict, total=False):
    """The keywords of every publish and produce method: those of `Bus.publish`, same meaning."""

    message_id: str | None
    headers: Mapping[str, str] | None
    session: object


class BrainFailed(RemoteError):
    """The brain answered a request with a `BrainError`, which is `error`.

    Its `fallback_response`, where it has one, may be spoken instead of an answer. `retryable` is
    True for a time-out only.
    """

    def __init__(self, error: BrainError) -> None:
        """Carry the brain's own words."""
        timed_out = error.error_type == "timeout"
        asked = "agent.brain.request"
        told = (error.error_type, error.error_message)
        super().__init__(*told, retryable=timed_out, destination=asked)
        self.error = error


class AgentBus:
    """What the platform's services say, as methods of one object.

    A thin layer: `bus` is an ordinary `Bus`, which the caller starts and closes, and which serves
    everything else. Each method publishes its payload to the destination of its contract, which
    gives the event type and the partition key, and raises what `Bus.publish` raises. A `publish_`
    method is ephemeral (NATS: at most once), a `produce_` method durable (Pulsar: at least once).

        agent = AgentBus(bus)
        async with bus, agent.heartbeats():
            await agent.publish_session_started(SessionStarted(...))
    """

    def __init__(self, bus: Bus) -> None:
        """Speak through `bus`, as its service."""
        self.bus = bus

    async def publish_track_published(
        self, event: TrackPublished, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that a participant's audio track can be heard."""
        await self.bus.publish("agent.voice.track.published", event, **settings)

    async def publish_track_unpublished(
        self, event: TrackUnpublished, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that a track has ended."""
        await self.bus.publish("agent.voice.track.unpublished", event, **settings)

    async def publish_session_started(
        self, event: SessionStarted, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that a user and an agent have met in a room."""
        await self.bus.publish("agent.voice.session.started", event, **settings)

    async def publish_session_ended(
        self, event: SessionEnded, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that a session is over."""
        await self.bus.publish("agent.voice.session.ended", event, **settings)

    async def publish_brain_request(
        self, request: BrainRequest, **settings: Unpack[PublishSettings]
    ) -> None:
        """Ask without waiting: the answer comes as `agent.brain.response` or `.error`."""
        await self.bus.publish("agent.brain.request", request, **settings)

    async def publish_brain_response(
        self, response: BrainResponse, **settings: Unpack[PublishSettings]
    ) -> None:
        """Answer a request that was published, not one that waits: there, return the response."""
        await self.bus.publish("agent.brain.response", response, **settings)

    async def publish_brain_error(
        self, event: BrainError, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that a published request has no answer."""
        await self.bus.publish("agent.brain.error", event, **settings)

    async def request_brain(self, request: BrainRequest, *, timeout: float = 5.0) -> BrainResponse:
        """Ask the brain and wait up to `timeout` seconds for its answer.

        Raises BrainFailed when the answer is a `BrainError`, DecodeError when it is neither, and
        what `Bus.request` raises: RequestTimeout, NoResponders at once, RemoteError.
        """
        subject = "agent.brain.request"
        answer = await self.bus.request(subject, request, dict[str, object], timeout=timeout)
        try:
            if "error_type" in answer:
                raise BrainFailed(msgspec.convert(answer, BrainError))
            return msgspec.convert(answer, BrainResponse)
        except msgspec.ValidationError as error:
            raise DecodeError(
                f"answer to {request.request_id!r} is not a BrainResponse or BrainError: {error}"
            ) from error

    async def publish_tts_request(
        self, request: TtsRequest, **settings: Unpack[PublishSettings]
    ) -> None:
        """Ask for a text to be spoken in a room."""
        await self.bus.publish("agent.tts.request", request, **settings)

    async def publish_tts_completed(
        self, event: TtsCompleted, **settings: Unpack[PublishSettings]
    ) -> None:
        """Say that the audio is there."""
        await self.bus.publish("agent.tts.completed", event, **settings)

    async def publish_heartbeat(
        self, status: Status = "healthy", metrics: Metrics | None = None
    ) -> None:
        """Give one sign of life as this bus's service; `heartbeats()` gives them regularly."""
        held = None if metrics is None else dict(metrics)
        event = Heartbeat(service=self.bus.service, status=status, metrics=held)
        await self.bus.publish("system.health.heartbeat", event)

    @asynccontextmanager
    async def heartbeats(
        self, *, interval: float = 30.0, metrics: Callable[[], Metrics] = dict
    ) -> AsyncGenerator[None]:
        """Give a sign of life now and every `interval` seconds, until the block is left.

        The status is that of `bus.health()`: `healthy` when every check is well, `unhealthy` when
        none is or they took more than 5 s, else `degraded`. The metrics are this process's
        cpu_percent and memory_mb, and what `metrics` returns at that moment. A beat that fails is
        reported to the bus's observers, and the next one tries again.
        """
        measured = process_metrics()

        async def beat(status: Status) -> None:
            await self.publish_heartbeat(status, {**next(measured), **metrics()})

        async with beat_forever(self.bus, beat, interval):
            yield

    async def publish_service_error(
        self,
        error_type: str,
        error_message: str,
        *,
        severity: str = "error",
        action_required: str | None = None,
    ) -> None:
        """Tell the operators what went wrong in this bus's service."""
        event = ServiceError(
            service=self.bus.service,
            error_type=error_type,
            error_message=error_message,
            severity=severity,
            action_required=action_required,
        )
        await self.bus.publish("system.service.error", event)

    async def produce_conversation_event(
        self, event: ConversationEvent, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record a completed turn, in the order of its user."""
        await self.bus.publish("persistent://arc/events/conversations", event, **settings)

    async def produce_lifecycle_event(
        self, event: AgentLifecycle, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record what happened to this service; `event.service.name` must be the bus's service."""
        await self.bus.publish("persistent://arc/events/agent-lifecycle", event, **settings)

    async def produce_livekit_webhook(
        self, event: LivekitWebhook, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record a webhook of LiveKit, in the order of its room."""
        await self.bus.publish("persistent://arc/events/livekit-webhooks", event, **settings)

    async def produce_session_metrics(
        self, event: SessionMetrics, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record a session in numbers, at its end."""
        await self.bus.publish("persistent://arc/analytics/session-metrics", event, **settings)

    async def produce_agent_performance(
        self, event: AgentPerformance, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record an agent in numbers over a period."""
        await self.bus.publish("persistent://arc/analytics/agent-performance", event, **settings)

    async def produce_analytics_event(
        self, metric_type: str, event: Mapping[str, object], **settings: Unpack[PublishSettings]
    ) -> None:
        """Record any JSON object as a metric of that type.

        Where that topic has a contract of its own, the object must keep it.
        """
        await self.bus.publish(f"persistent://arc/analytics/{metric_type}", event, **settings)

    async def produce_audit_log(
        self,
        user_id: str,
        action: str,
        resource: str,
        fields: Mapping[str, object] | None = None,
        **settings: Unpack[PublishSettings],
    ) -> None:
        """Record who did what to which resource, in the order of that user.

        `fields` says more beside the three. Raises FieldClash where it says one of them again.
        """
        event = {"user_id": user_id, "action": action, "resource": resource}
        if clash := sorted(event.keys() & (fields or {}).keys()):
            raise FieldClash(f"audit log fields {', '.join(clash)} are given twice")
        await self.bus.publish(
            "persistent://arc/audit/logs", {**event, **(fields or {})}, **settings
        )

    async def produce_compliance_event(
        self, event: ComplianceEvent, *, user_id: str, **settings: Unpack[PublishSettings]
    ) -> None:
        """Record what was done with the data of `user_id`, in the order of that person."""
        topic = "persistent://arc/audit/compliance-events"
        await self.bus.publish(topic, event, key=user_id, **settings)

    def consume_conversation_events(
        self, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to completed turns: `Bus.subscribe` with `TOPIC_RETRY` by default."""
        return self._consume("persistent://arc/events/conversations", handler, settings)

    def consume_lifecycle_events(
        self, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to what happens to services."""
        return self._consume("persistent://arc/events/agent-lifecycle", handler, settings)

    def consume_livekit_webhooks(
        self, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to LiveKit's webhooks."""
        return self._consume("persistent://arc/events/livekit-webhooks", handler, settings)

    def consume_analytics_events(
        self, metric_type: str, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to one metric type, or to all with `*` (a wildcard of the route)."""
        return self._consume(f"persistent://arc/analytics/{metric_type}", handler, settings)

    def consume_audit_events(
        self, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to the audit log."""
        return self._consume("persistent://arc/audit/logs", handler, settings)

    def consume_compliance_events(
        self, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> Handle:
        """Subscribe `handler` to what was done with persons' data."""
        return self._consume("persistent://arc/audit/compliance-events", handler, settings)

    def _consume(self, topic: str, handler: Function, settings: SubscriptionSettings) -> Handle:
        settings.setdefault("retry", TOPIC_RETRY)
        return self.bus.subscribe(topic, handler, **settings)
