from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arc_bus import Bus, Envelope, RemoteError, Retry
from arc_bus.agent import AgentBus, BrainFailed
from arc_bus.contracts import (
    AuditLog,
    BrainError,
    BrainRequest,
    BrainResponse,
    ConversationEvent,
    Registry,
    ServiceInstance,
    TtsRequest,
    builtin,
)
from arc_bus.envelope import ENVELOPE_FIELDS
from arc_bus.errors import DecodeError, EncodeError, FieldClash, InvalidName

GOLDEN = Path(__file__).parents[1] / "golden"
ROUTES = dict.fromkeys(("agent.", "system.", "dead.", "persistent://arc/"), "memory://")

# Each verb, the golden message that it says, and the partition key that its contract gives it.
VERBS: dict[str, tuple[str, str | None]] = {
    "publish_track_published": ("nats/agent.voice.track.published", None),
    "publish_track_unpublished": ("nats/agent.voice.track.unpublished", None),
    "publish_session_started": ("nats/agent.voice.session.started", None),
    "publish_session_ended": ("nats/agent.voice.session.ended", None),
    "publish_brain_request": ("nats/agent.brain.request", None),
    "publish_brain_response": ("nats/agent.brain.response", None),
    "publish_brain_error": ("nats/agent.brain.error", None),
    "publish_tts_request": ("nats/agent.tts.request", None),
    "publish_tts_completed": ("nats/agent.tts.completed", None),
    "publish_heartbeat": ("nats/system.health.heartbeat", None),
    "publish_service_error": ("nats/system.service.error", None),
    "produce_conversation_event": ("pulsar/events.conversations", "user-123"),
    "produce_lifecycle_event": ("pulsar/events.agent-lifecycle", "arc-sherlock-brain"),
    "produce_livekit_webhook": ("pulsar/events.livekit-webhooks", "daily-standup"),
    "produce_session_metrics": ("pulsar/analytics.session-metrics", "the date"),
    "produce_agent_performance": ("pulsar/analytics.agent-performance", "arc-sherlock-brain"),
    "produce_analytics_event": ("pulsar/analytics.llm-cost", None),
    "produce_audit_log": ("pulsar/audit.logs", "user-123"),
    "produce_compliance_event": ("pulsar/audit.compliance-events", "user-123"),
}


def fields_of(verb: str) -> Any:
    return json.loads((GOLDEN / f"{VERBS[verb][0]}.json").read_bytes())


def destination_of(verb: str) -> str:
    folder, _, name = VERBS[verb][0].partition("/")
    return name if folder == "nats" else f"persistent://arc/{name.replace('.', '/')}"


def payload_of(verb: str) -> Any:
    contract = Registry(builtin()).for_destination(destination_of(verb))
    assert contract is not None
    fields = fields_of(verb)
    # An audit log may say more than its three fields; such a publisher gives a dict.
    if contract.payload is dict or verb == "produce_audit_log":
        return {name: value for name, value in fields.items() if name not in ENVELOPE_FIELDS}
    return msgspec.convert(fields, contract.payload)


def agent_for(verb: str) -> AgentBus:
    service = fields_of(verb)["service"]
    return AgentBus(Bus(service["name"] if isinstance(service, dict) else service, ROUTES))


async def say(agent: AgentBus, verb: str) -> None:
    event = payload_of(verb)
    if verb == "publish_heartbeat":
        await agent.publish_heartbeat(event.status, event.metrics)
    elif verb == "publish_service_error":
        await agent.publish_service_error(
            event.error_type,
            event.error_message,
            severity=event.severity,
            action_required=event.action_required,
        )
    elif verb == "produce_analytics_event":
        await agent.produce_analytics_event("llm-cost", event)
    elif verb == "produce_audit_log":
        named = {name: event.pop(name) for name in ("user_id", "action", "resource")}
        await agent.produce_audit_log(**named, fields=event)
    elif verb == "produce_compliance_event":
        await agent.produce_compliance_event(event, user_id="user-123")
    else:
        await getattr(agent, verb)(event)


REQUEST: BrainRequest = payload_of("publish_brain_request")
RESPONSE: BrainResponse = payload_of("publish_brain_response")
ERROR: BrainError = payload_of("publish_brain_error")


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
    return AgentBus(Bus(service="arc-sherlock-brain", routes=ROUTES))


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_arrives_typed_on_its_destination(verb: str) -> None:
    agent, ear, payload = agent_for(verb), Ear(), payload_of(verb)
    agent.bus.subscribe(destination_of(verb), ear.handler(type(payload)))
    async with agent.bus:
        await say(agent, verb)
        event = await ear.next()
    assert event.payload == payload
    assert event.service == agent.bus.service
    assert event.event_type == fields_of(verb).get("event_type")
    key = VERBS[verb][1]
    assert event.key == (event.timestamp[:10] if key == "the date" else key)


def test_every_contract_has_its_verb_and_every_verb_its_test() -> None:
    spoken = {destination_of(verb) for verb in VERBS}
    exact = {contract.destination for contract in builtin() if "*" not in contract.destination}
    assert exact == spoken - {"persistent://arc/analytics/llm-cost"}
    verbs = {
        name
        for name, _ in inspect.getmembers(AgentBus, inspect.isfunction)
        if name.startswith(("publish_", "produce_"))
    }
    assert verbs == set(VERBS)


@pytest.mark.parametrize(
    ("consume", "verb"),
    [
        ("consume_conversation_events", "produce_conversation_event"),
        ("consume_lifecycle_events", "produce_lifecycle_event"),
        ("consume_livekit_webhooks", "produce_livekit_webhook"),
        ("consume_compliance_events", "produce_compliance_event"),
    ],
)
async def test_each_consume_method_hears_its_verb(consume: str, verb: str) -> None:
    agent, ear, payload = agent_for(verb), Ear(), payload_of(verb)
    handle = getattr(agent, consume)(ear.handler(type(payload)), group="workers")
    async with agent.bus:
        await say(agent, verb)
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
    agent.consume_audit_events(typed.handler(AuditLog))
    agent.consume_audit_events(whole.handler(dict))
    async with agent.bus:
        await agent.produce_audit_log("user-1", "login", "session", {"ip": "192.0.2.7"})
        log = AuditLog(user_id="user-1", action="login", resource="session")
        assert (await typed.next()).payload == log
        assert (await whole.next()).payload["ip"] == "192.0.2.7"


async def test_a_topic_message_is_tried_four_times_and_then_dead_lettered(
    agent: AgentBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arc_bus.policy.Retry.delay", lambda _self, _attempt: 0.0)
    starts: list[ConversationEvent] = []
    dead = Ear()

    async def fail(event: ConversationEvent) -> None:
        starts.append(event)
        raise RuntimeError("no database")

    agent.consume_conversation_events(fail, group="indexer")
    topic = "persistent://arc/events/conversations-dlq"
    agent.bus.subscribe(topic, dead.handler(dict), dead_letter=None)
    async with agent.bus:
        await say(agent, "produce_conversation_event")
        await dead.next()
    assert len(starts) == 4


async def test_a_consumer_may_bring_its_own_retry(agent: AgentBus) -> None:
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
async def test_an_answer_that_is_neither_is_a_decode_error(answer: dict[str, str]) -> None:
    agent = AgentBus(Bus(routes=ROUTES))

    @agent.bus.subscribe("agent.brain.request")
    async def reason(_request: BrainRequest) -> dict[str, str]:
        return answer

    async with agent.bus:
        with pytest.raises(DecodeError, match="'req-1' is not a BrainResponse or BrainError"):
            await agent.request_brain(REQUEST)


async def test_a_payload_that_breaks_its_contract_is_never_sent(agent: AgentBus) -> None:
    ear = Ear()
    agent.bus.subscribe("agent.tts.request", ear.handler(TtsRequest))
    empty = msgspec.structs.replace(payload_of("publish_tts_request"), text="")
    async with agent.bus:
        with pytest.raises(EncodeError, match=r"\$\.text"):
            await agent.publish_tts_request(empty)
        await say(agent, "publish_tts_request")
        assert (await ear.next()).payload == payload_of("publish_tts_request")
    assert ear.heard.empty()


async def test_another_services_lifecycle_event_is_refused(agent: AgentBus) -> None:
    other = msgspec.structs.replace(
        payload_of("produce_lifecycle_event"),
        service=ServiceInstance(name="arc-piper-tts", instance_id="1", version="1", node="a"),
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
