from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from arc_bus import Bus, Check, Envelope, Notice, NoticeKind, RemoteError, hookimpl
from arc_bus.agent import AgentBus, BrainFailed
from arc_bus.contracts import (
    Action,
    Actor,
    AgentLifecycle,
    AgentPerformance,
    AgentResponse,
    AuditLog,
    BrainError,
    BrainRequest,
    BrainResponse,
    ComplianceEvent,
    ConnectionQuality,
    Conversation,
    ConversationEvent,
    ConversationStats,
    Heartbeat,
    LifecycleDetails,
    LivekitWebhook,
    MeasuredSession,
    PerformanceMetrics,
    ServiceError,
    ServiceInstance,
    SessionEnded,
    SessionMetrics,
    SessionStarted,
    TrackPublished,
    TrackUnpublished,
    TtsCompleted,
    TtsRequest,
    UserMessage,
    WebhookMetadata,
    builtin,
)
from arc_bus.errors import DecodeError, EncodeError, FieldClash, InvalidName

SERVICE = "arc-sherlock-brain"
ROUTES = dict.fromkeys(("agent.", "system.", "dead.", "persistent://arc/"), "memory://")

REQUEST = BrainRequest(
    request_id="req-1",
    user_id="user-1",
    session_id="session-1",
    conversation_id="conv-1",
    turn_index=0,
    user_input="What's the weather like today?",
)
RESPONSE = BrainResponse(
    request_id="req-1",
    user_id="user-1",
    session_id="session-1",
    conversation_id="conv-1",
    turn_index=0,
    agent_response="Sunny and mild.",
)
ERROR = BrainError(
    request_id="req-1",
    error_type="timeout",
    error_message="no answer within 2000 ms",
    retry_count=1,
    fallback_response="Could you say that again?",
)
COMPLIANCE = ComplianceEvent(
    event_type="user_data_accessed",
    actor=Actor(type="service", service_name=SERVICE, instance_id="1", authenticated_as="svc"),
    action=Action(
        type="read", operation="SELECT", resource="conversations", resource_id="c", reason="turn"
    ),
)
METRICS = SessionMetrics(
    session=MeasuredSession(
        id="session-1",
        user_id="user-1",
        agent_id="arc-scarlett-voice",
        room_name="lobby",
        room_sid="RM_1",
        started_at="2026-01-01T10:00:00Z",
        ended_at="2026-01-01T10:05:20Z",
        duration_seconds=320,
    ),
    conversation_stats=ConversationStats(
        total_turns=1,
        user_messages=1,
        agent_messages=1,
        avg_turn_length_words=4,
        total_tokens_used=10,
    ),
    performance_metrics=PerformanceMetrics(
        avg_latency_ms=1,
        p50_latency_ms=1,
        p95_latency_ms=1,
        p99_latency_ms=1,
        max_latency_ms=1,
        avg_stt_latency_ms=1,
        avg_llm_latency_ms=1,
        avg_tts_latency_ms=1,
        sla_compliance_percent=100,
        target_latency_ms=1000,
    ),
    connection_quality=ConnectionQuality(
        avg_packet_loss_percent=0,
        avg_jitter_ms=1,
        connection_type="wifi",
        reconnect_count=0,
        quality_rating="good",
    ),
)
PERFORMANCE = AgentPerformance(
    aggregation_period="1h",
    time_bucket="2026-01-01T10:00:00Z",
    agent_id="agent-1",
    instance_id="brain-1",
    metrics={"requests": 1},
    resource_usage={},
)
CONVERSATION = ConversationEvent(
    conversation=Conversation(
        id="conv-1",
        session_id="session-1",
        user_id="user-1",
        agent_id="arc-scarlett-voice",
        turn_index=0,
    ),
    user_message=UserMessage(text="Hello"),
    agent_response=AgentResponse(text="Hi"),
)
LIFECYCLE = AgentLifecycle(
    event_type="service_started",
    service=ServiceInstance(name=SERVICE, instance_id="brain-1", version="1.0", node="node-a"),
    event_details=LifecycleDetails(
        type="startup", reason="deployment", previous_state="stopped", current_state="running"
    ),
)
WEBHOOK = LivekitWebhook(
    event="room_started",
    webhook_payload={"event": "room_started", "room": {"name": "lobby"}},
    metadata=WebhookMetadata(
        webhook_id="EV_1", received_at="2026-01-01T10:00:00Z", processing_latency_ms=1
    ),
)

TRACK_PUBLISHED = TrackPublished(
    room_name="lobby",
    room_sid="RM_1",
    participant_sid="PA_1",
    participant_identity="user-1",
    track_sid="TR_1",
)
TRACK_UNPUBLISHED = TrackUnpublished(
    room_name="lobby",
    participant_sid="PA_1",
    track_sid="TR_1",
    reason="user_disconnected",
    duration_seconds=3,
)
SESSION_STARTED = SessionStarted(
    user_id="user-1",
    session_id="session-1",
    room_name="lobby",
    room_sid="RM_1",
    participant_sid="PA_1",
)
SESSION_ENDED = SessionEnded(
    user_id="user-1",
    session_id="session-1",
    room_name="lobby",
    duration_seconds=3,
    total_turns=1,
    reason="user_left",
    final_status="completed",
)
TTS_REQUEST = TtsRequest(
    request_id="req-1",
    text="Sunny.",
    voice_id="en_US-amy",
    session_id="session-1",
    target_room="lobby",
)
TTS_COMPLETED = TtsCompleted(
    request_id="req-1",
    audio_track_sid="TR_2",
    duration_ms=900,
    synthesis_latency_ms=90,
    audio_format="opus",
    ready_for_playback=True,
)

Say = Callable[[AgentBus], Awaitable[None]]

# What is said, on which destination it arrives, as what, with which event type and key.
VERBS: dict[str, tuple[Say, str, object, str | None, str | None]] = {
    "publish_track_published": (
        lambda agent: agent.publish_track_published(TRACK_PUBLISHED),
        "agent.voice.track.published",
        TRACK_PUBLISHED,
        "track_published",
        None,
    ),
    "publish_track_unpublished": (
        lambda agent: agent.publish_track_unpublished(TRACK_UNPUBLISHED),
        "agent.voice.track.unpublished",
        TRACK_UNPUBLISHED,
        "track_unpublished",
        None,
    ),
    "publish_session_started": (
        lambda agent: agent.publish_session_started(SESSION_STARTED),
        "agent.voice.session.started",
        SESSION_STARTED,
        "session_started",
        None,
    ),
    "publish_session_ended": (
        lambda agent: agent.publish_session_ended(SESSION_ENDED),
        "agent.voice.session.ended",
        SESSION_ENDED,
        "session_ended",
        None,
    ),
    "publish_brain_request": (
        lambda agent: agent.publish_brain_request(REQUEST),
        "agent.brain.request",
        REQUEST,
        "brain_request",
        None,
    ),
    "publish_brain_response": (
        lambda agent: agent.publish_brain_response(RESPONSE),
        "agent.brain.response",
        RESPONSE,
        "brain_response",
        None,
    ),
    "publish_brain_error": (
        lambda agent: agent.publish_brain_error(ERROR),
        "agent.brain.error",
        ERROR,
        "brain_error",
        None,
    ),
    "publish_tts_request": (
        lambda agent: agent.publish_tts_request(TTS_REQUEST),
        "agent.tts.request",
        TTS_REQUEST,
        "tts_request",
        None,
    ),
    "publish_tts_completed": (
        lambda agent: agent.publish_tts_completed(TTS_COMPLETED),
        "agent.tts.completed",
        TTS_COMPLETED,
        "tts_completed",
        None,
    ),
    "publish_heartbeat": (
        lambda agent: agent.publish_heartbeat("degraded", {"active_sessions": 3}),
        "system.health.heartbeat",
        Heartbeat(service=SERVICE, status="degraded", metrics={"active_sessions": 3}),
        "heartbeat",
        None,
    ),
    "publish_service_error": (
        lambda agent: agent.publish_service_error(
            "llm_unreachable", "refused", severity="critical", action_required="look"
        ),
        "system.service.error",
        ServiceError(
            service=SERVICE,
            error_type="llm_unreachable",
            error_message="refused",
            severity="critical",
            action_required="look",
        ),
        "service_error",
        None,
    ),
    "produce_conversation_event": (
        lambda agent: agent.produce_conversation_event(CONVERSATION),
        "persistent://arc/events/conversations",
        CONVERSATION,
        "conversation_turn_completed",
        "user-1",
    ),
    "produce_lifecycle_event": (
        lambda agent: agent.produce_lifecycle_event(LIFECYCLE),
        "persistent://arc/events/agent-lifecycle",
        LIFECYCLE,
        "service_started",
        SERVICE,
    ),
    "produce_livekit_webhook": (
        lambda agent: agent.produce_livekit_webhook(WEBHOOK),
        "persistent://arc/events/livekit-webhooks",
        WEBHOOK,
        None,
        "lobby",
    ),
    "produce_agent_performance": (
        lambda agent: agent.produce_agent_performance(PERFORMANCE),
        "persistent://arc/analytics/agent-performance",
        PERFORMANCE,
        "analytics_agent-performance",
        "agent-1",
    ),
    "produce_analytics_event": (
        lambda agent: agent.produce_analytics_event("llm-cost", {"usd": 0.002}),
        "persistent://arc/analytics/llm-cost",
        {"usd": 0.002},
        "analytics_llm-cost",
        None,
    ),
    "produce_audit_log": (
        lambda agent: agent.produce_audit_log("user-1", "login", "session", {"ip": "192.0.2.7"}),
        "persistent://arc/audit/logs",
        {"user_id": "user-1", "action": "login", "resource": "session", "ip": "192.0.2.7"},
        "audit_log",
        "user-1",
    ),
    "produce_compliance_event": (
        lambda agent: agent.produce_compliance_event(COMPLIANCE, user_id="user-1"),
        "persistent://arc/audit/compliance-events",
        COMPLIANCE,
        "user_data_accessed",
        "user-1",
    ),
}


class Ear:
    """Takes every envelope that arrives, in order."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Envelope[Any]] = asyncio.Queue()

    def handler(self, kind: object) -> Callable[..., Awaitable[None]]:
        async def take(event: Envelope[Any]) -> None:
            self.heard.put_nowait(event)

        take.__annotations__["event"] = Envelope[kind]  # type: ignore[valid-type]
        return take

    async def next(self) -> Envelope[Any]:
        return await asyncio.wait_for(self.heard.get(), 5)


@pytest.fixture
def agent() -> AgentBus:
    return AgentBus(Bus(service=SERVICE, routes=ROUTES))


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_arrives_typed_on_its_destination(agent: AgentBus, verb: str) -> None:
    say, destination, payload, event_type, key = VERBS[verb]
    ear = Ear()
    agent.bus.subscribe(destination, ear.handler(type(payload)))
    async with agent.bus:
        await say(agent)
        event = await ear.next()
    assert event.payload == payload
    assert event.service == SERVICE
    assert event.event_type == event_type
    assert event.key == key


async def test_session_metrics_are_keyed_by_the_day_they_were_published(agent: AgentBus) -> None:
    ear = Ear()
    agent.bus.subscribe("persistent://arc/analytics/session-metrics", ear.handler(SessionMetrics))
    async with agent.bus:
        await agent.produce_session_metrics(METRICS)
        event = await ear.next()
    assert event.payload == METRICS
    assert event.key == event.timestamp[:10]


def test_every_contract_has_its_verb_and_every_verb_its_test() -> None:
    spoken = {destination for _, destination, *_ in VERBS.values()}
    spoken.add("persistent://arc/analytics/session-metrics")
    exact = {contract.destination for contract in builtin() if "*" not in contract.destination}
    assert exact == spoken - {"persistent://arc/analytics/llm-cost"}
    verbs = {
        name
        for name, member in inspect.getmembers(AgentBus, inspect.isfunction)
        if name.startswith(("publish_", "produce_"))
    }
    assert verbs == {*VERBS, "produce_session_metrics"}


@pytest.mark.parametrize(
    ("consume", "verb"),
    [
        ("consume_conversation_events", "produce_conversation_event"),
        ("consume_lifecycle_events", "produce_lifecycle_event"),
        ("consume_livekit_webhooks", "produce_livekit_webhook"),
        ("consume_compliance_events", "produce_compliance_event"),
    ],
)
async def test_each_consume_method_hears_its_verb(agent: AgentBus, consume: str, verb: str) -> None:
    say, _, payload, *_ = VERBS[verb]
    ear = Ear()
    handle = getattr(agent, consume)(ear.handler(type(payload)), group="workers")
    async with agent.bus:
        await say(agent)
        assert (await ear.next()).payload == payload
    assert handle.subscription.group == "workers"


async def test_analytics_are_consumed_by_metric_type_or_all_together(agent: AgentBus) -> None:
    one, every = Ear(), Ear()
    agent.consume_analytics_events("llm-cost", one.handler(dict))
    agent.consume_analytics_events("*", every.handler(dict))
    async with agent.bus:
        await agent.produce_analytics_event("cache-hits", {"ratio": 0.5})
        await agent.produce_analytics_event("llm-cost", {"usd": 1})
        assert (await one.next()).payload == {"usd": 1}
        both = [(await every.next()).event_type for _ in range(2)]
    assert sorted(map(str, both)) == ["analytics_cache-hits", "analytics_llm-cost"]
    assert one.heard.empty()


async def test_an_audit_log_is_read_typed_or_whole(agent: AgentBus) -> None:
    typed, whole = Ear(), Ear()
    agent.consume_audit_events(typed.handler(AuditLog), group="typed")
    agent.consume_audit_events(whole.handler(dict), group="whole")
    async with agent.bus:
        await agent.produce_audit_log("user-1", "login", "session", {"ip": "192.0.2.7"})
        expected = AuditLog(user_id="user-1", action="login", resource="session")
        assert (await typed.next()).payload == expected
        assert (await whole.next()).payload["ip"] == "192.0.2.7"


async def test_a_topic_message_is_tried_four_times_and_then_dead_lettered(
    agent: AgentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arc_bus.policy.Retry.delay", lambda _self, _attempt: 0.0)
    starts = 0
    dead = Ear()

    async def fail(_event: ConversationEvent) -> None:
        nonlocal starts
        starts += 1
        raise RuntimeError("no database")

    agent.consume_conversation_events(fail, group="indexer")
    topic = "persistent://arc/events/conversations-dlq"
    agent.bus.subscribe(topic, dead.handler(dict), dead_letter=None)
    async with agent.bus:
        await agent.produce_conversation_event(CONVERSATION)
        await dead.next()
    assert starts == 4


async def test_a_consumer_may_bring_its_own_retry(agent: AgentBus) -> None:
    from arc_bus import Retry

    handle = agent.consume_audit_events(Ear().handler(dict), retry=Retry(attempts=2))
    assert handle.subscription.retry.attempts == 2


async def test_the_brain_is_asked_and_answers(agent: AgentBus) -> None:
    @agent.bus.subscribe("agent.brain.request", group="sherlock_workers")
    async def reason(request: BrainRequest) -> BrainResponse | BrainError:
        assert request == REQUEST
        return RESPONSE

    async with agent.bus:
        assert await agent.request_brain(REQUEST) == RESPONSE


async def test_a_brain_error_is_raised_with_its_fallback(agent: AgentBus) -> None:
    @agent.bus.subscribe("agent.brain.request")
    async def reason(_request: BrainRequest) -> BrainResponse | BrainError:
        return ERROR

    async with agent.bus:
        with pytest.raises(BrainFailed, match="no answer within 2000 ms") as raised:
            await agent.request_brain(REQUEST)
    assert raised.value.error == ERROR
    assert raised.value.retryable


async def test_a_brain_that_raises_is_a_remote_error_and_no_brain_error(agent: AgentBus) -> None:
    @agent.bus.subscribe("agent.brain.request")
    async def reason(_request: BrainRequest) -> BrainResponse:
        raise KeyError("model")

    async with agent.bus:
        with pytest.raises(RemoteError) as raised:
            await agent.request_brain(REQUEST)
    assert raised.value.type == "KeyError"
    assert not isinstance(raised.value, BrainFailed)


@pytest.mark.parametrize("answer", [{"text": "Sunny"}, {"error_type": "timeout"}])
async def test_an_answer_that_is_neither_is_a_decode_error(
    agent: AgentBus, answer: dict[str, str]
) -> None:
    @agent.bus.subscribe("agent.brain.request")
    async def reason(_request: BrainRequest) -> dict[str, str]:
        return answer

    async with agent.bus:
        with pytest.raises(DecodeError, match="'req-1' is no BrainResponse or BrainError"):
            await agent.request_brain(REQUEST)


async def test_a_payload_that_breaks_its_contract_is_never_sent(agent: AgentBus) -> None:
    ear = Ear()
    agent.bus.subscribe("agent.tts.request", ear.handler(TtsRequest))
    empty = TtsRequest(request_id="r", text="", voice_id="v", session_id="s", target_room="lobby")
    async with agent.bus:
        with pytest.raises(EncodeError, match=r"\$\.text"):
            await agent.publish_tts_request(empty)
        await agent.publish_tts_request(TTS_REQUEST)
        assert (await ear.next()).payload == TTS_REQUEST
    assert ear.heard.empty()


async def test_another_services_lifecycle_event_is_refused(agent: AgentBus) -> None:
    other = AgentLifecycle(
        event_type="service_started",
        service=ServiceInstance(name="arc-piper-tts", instance_id="1", version="1", node="a"),
        event_details=LIFECYCLE.event_details,
    )
    async with agent.bus:
        with pytest.raises(FieldClash, match="arc-piper-tts"):
            await agent.produce_lifecycle_event(other)


async def test_an_audit_field_given_twice_is_refused(agent: AgentBus) -> None:
    async with agent.bus:
        with pytest.raises(FieldClash, match="action"):
            await agent.produce_audit_log("user-1", "login", "session", {"action": "logout"})


async def test_a_metric_type_that_is_no_topic_name_is_refused(agent: AgentBus) -> None:
    async with agent.bus:
        with pytest.raises(InvalidName):
            await agent.produce_analytics_event("llm/cost", {"usd": 1})


async def test_heartbeats_come_at_once_and_regularly_with_real_numbers(agent: AgentBus) -> None:
    ear = Ear()
    sessions = iter((1, 2, 3))
    agent.bus.subscribe("system.health.heartbeat", ear.handler(Heartbeat))
    async with agent.bus:
        beats = agent.heartbeats(
            interval=0.01, metrics=lambda: {"active_sessions": next(sessions, 9)}
        )
        async with beats:
            events = [(await ear.next()).payload for _ in range(3)]
        assert asyncio.all_tasks() == {
            task for task in asyncio.all_tasks() if task.get_name() != "arc-heartbeat"
        }
    assert [event.metrics["active_sessions"] for event in events] == [1, 2, 3]
    assert {event.status for event in events} == {"healthy"}
    assert all(event.metrics["memory_mb"] > 5 for event in events)
    assert all(event.metrics["cpu_percent"] >= 0 for event in events)


class Checks:
    """A plugin whose health checks say what they are told."""

    plugin_name = "checks"

    def __init__(self, *wells: bool) -> None:
        self.wells = wells

    @hookimpl
    def arc_health(self, bus: Bus) -> list[Callable[[], Awaitable[Check]]]:
        async def check(number: int) -> Check:
            return Check(name=f"{bus.service}-{number}", ok=self.wells[number])

        return [partial(check, number) for number in range(len(self.wells))]


async def test_a_heartbeat_tells_that_one_check_of_many_is_not_well() -> None:
    ear = Ear()
    agent = AgentBus(Bus(service=SERVICE, routes=ROUTES, plugins=[Checks(True, False)]))
    agent.bus.subscribe("system.health.heartbeat", ear.handler(Heartbeat))
    async with agent.bus, agent.heartbeats():
        assert (await ear.next()).payload.status == "degraded"


async def test_a_beat_that_fails_is_reported_and_the_next_one_comes(agent: AgentBus) -> None:
    ear = Ear()
    notices: list[Notice] = []
    counts = iter((1, 2))

    def metrics() -> dict[str, object]:
        if next(counts, None) == 1:
            raise OSError("no counter")
        return {}

    agent.bus.subscribe("system.health.heartbeat", ear.handler(Heartbeat))
    agent.bus.observe(notices.append)
    async with agent.bus, agent.heartbeats(interval=0.01, metrics=metrics):
        await ear.next()
    [failed] = [notice for notice in notices if notice.detail == "heartbeat failed"]
    assert failed.kind is NoticeKind.ERROR
    assert isinstance(failed.error, OSError)
