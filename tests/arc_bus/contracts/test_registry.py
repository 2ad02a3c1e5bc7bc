from __future__ import annotations

import msgspec
import pytest

from arc_bus.contracts import (
    AuditLog,
    BrainRequest,
    ComplianceEvent,
    Contract,
    ConversationEvent,
    Heartbeat,
    LivekitWebhook,
    Registry,
    SessionMetrics,
    builtin,
)
from arc_bus.contracts.fields import Count, Payload
from arc_bus.envelope import utc_now
from arc_bus.errors import ConfigError, EncodeError, InvalidName


class Order(Payload, frozen=True, kw_only=True):
    number: Count
    customer: str | None = None


class Refund(Payload, frozen=True, kw_only=True):
    number: Count


@pytest.fixture
def registry() -> Registry:
    return Registry(builtin())


def contract_of(registry: Registry, destination: str) -> Contract:
    found = registry.for_destination(destination)
    assert found is not None
    return found


def test_an_exact_destination_wins_over_a_pattern(registry: Registry) -> None:
    exact = contract_of(registry, "persistent://arc/analytics/session-metrics")
    by_pattern = contract_of(registry, "persistent://arc/analytics/llm-cost")
    assert exact.payload is SessionMetrics
    assert by_pattern.payload is dict


@pytest.mark.parametrize(
    "destination",
    [
        "agent.brain",
        "agent.brain.request.more",
        "persistent://arc/analytics/a/b",
        "persistent://other/analytics/a",
        "",
    ],
)
def test_a_destination_without_a_contract_has_none(registry: Registry, destination: str) -> None:
    assert registry.for_destination(destination) is None


def test_a_star_in_a_subject_stands_for_one_token() -> None:
    registry = Registry((Contract(destination="shop.*.ordered", payload=Order),))
    assert registry.for_destination("shop.books.ordered") is not None
    assert registry.for_destination("shop.books.used.ordered") is None


def test_a_tail_stands_for_one_token_and_more() -> None:
    registry = Registry((Contract(destination="shop.>", payload=Order),))
    assert registry.for_destination("shop.books.ordered") is not None
    assert registry.for_destination("shop") is None


def test_a_payload_finds_its_contract_and_so_does_one_that_inherits_from_it(
    registry: Registry,
) -> None:
    class Login(AuditLog, frozen=True, kw_only=True):
        ip_address: str

    assert registry.for_payload(BrainRequest) is contract_of(registry, "agent.brain.request")
    assert registry.for_payload(Login) is contract_of(registry, "persistent://arc/audit/logs")
    assert registry.for_payload(Order) is None
    assert registry.for_payload(dict) is None


def test_the_same_contract_twice_is_one(registry: Registry) -> None:
    before = len(registry)
    registry.register(Contract(destination="shop.ordered", payload=Order))
    registry.register(Contract(destination="shop.ordered", payload=Order))
    assert len(registry) == before + 1
    assert len(list(registry)) == before + 1


@pytest.mark.parametrize(
    "second",
    [
        Contract(destination="shop.ordered", payload=Refund),
        Contract(destination="shop.refunded", payload=Order),
        Contract(destination="shop.ordered", payload=Order, event_type="ordered"),
    ],
)
def test_a_second_different_contract_is_refused_and_named(second: Contract) -> None:
    registry = Registry((Contract(destination="shop.ordered", payload=Order),))
    with pytest.raises(ConfigError, match=r"two contracts clash: Order on 'shop\.ordered'"):
        registry.register(second)
    assert list(registry) == [Contract(destination="shop.ordered", payload=Order)]


def test_a_destination_that_is_none_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidName, match="last part only"):
        registry.register(Contract(destination="persistent://arc/*/ordered", payload=Order))


def test_two_registries_share_nothing() -> None:
    one, other = Registry(), Registry()
    one.register(Contract(destination="shop.ordered", payload=Order))
    assert len(other) == 0


def test_the_event_type_of_a_pattern_takes_the_last_part_of_the_destination(
    registry: Registry,
) -> None:
    contract = contract_of(registry, "persistent://arc/analytics/llm-cost")
    assert contract.event_type_of("persistent://arc/analytics/llm-cost") == "analytics_llm-cost"


def test_where_the_payload_chooses_the_event_type_the_contract_names_none(
    registry: Registry,
) -> None:
    topic = "persistent://arc/events/agent-lifecycle"
    assert contract_of(registry, topic).event_type_of(topic) is None


def test_a_key_is_found_by_its_path_in_a_payload_and_in_a_mapping(registry: Registry) -> None:
    contract = contract_of(registry, "persistent://arc/audit/logs")
    assert contract.key_of(AuditLog(user_id="u-1", action="login", resource="session")) == "u-1"
    nested = contract_of(registry, "persistent://arc/events/conversations")
    assert nested.key_of({"conversation": {"user_id": "u-2"}}) == "u-2"


@pytest.mark.parametrize("payload", [{}, {"user_id": ""}, {"user_id": 7}, {"user_id": None}])
def test_a_payload_without_its_key_is_refused(
    registry: Registry, payload: dict[str, object]
) -> None:
    with pytest.raises(EncodeError, match=r"partitioned by 'user_id'.*pass key="):
        contract_of(registry, "persistent://arc/audit/logs").key_of(payload)


def test_session_metrics_are_keyed_by_the_date(registry: Registry) -> None:
    before = utc_now()[:10]
    key = contract_of(registry, "persistent://arc/analytics/session-metrics").key_of({})
    assert key in (before, utc_now()[:10])


def test_a_compliance_event_cannot_be_published_without_naming_the_user(
    registry: Registry,
) -> None:
    contract = registry.for_payload(ComplianceEvent)
    assert contract is not None
    with pytest.raises(EncodeError, match=r"pass key=<user_id>"):
        contract.key_of({})


@pytest.mark.parametrize(
    ("webhook", "key"),
    [
        ({"event": "room_started", "room": {"name": "lobby"}}, "lobby"),
        ({"event": "egress_ended", "egressInfo": {"roomName": "stage"}}, "stage"),
        ({"event": "ingress_started", "ingressInfo": {"roomName": "stage"}}, "stage"),
        ({"event": "egress_ended", "room": None, "egressInfo": {"roomName": "stage"}}, "stage"),
        ({"event": "room_started"}, None),
    ],
)
def test_a_webhook_is_keyed_by_its_room(
    registry: Registry, webhook: dict[str, object], key: str | None
) -> None:
    contract = registry.for_payload(LivekitWebhook)
    assert contract is not None
    assert contract.key_of({"webhook_payload": webhook}) == key


def test_a_payload_that_breaks_a_rule_is_refused_with_the_field_and_the_rule(
    registry: Registry,
) -> None:
    request = BrainRequest(
        request_id="r",
        user_id="u",
        session_id="s",
        conversation_id="c",
        turn_index=-1,
        user_input="Hello",
    )
    contract = contract_of(registry, "agent.brain.request")
    with pytest.raises(EncodeError, match=r"'agent.brain.request'.*>= 0.*\$\.turn_index"):
        contract.check(request)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ({"service": "s", "status": "fine"}, "status"),
        ({"status": "healthy"}, "service"),
        ({"service": "", "status": "healthy"}, "service"),
        ({"service": "s", "status": "healthy", "metrics": [1]}, "metrics"),
        ({"service": "s", "status": "healthy", "metrics": {"x": object()}}, "object"),
    ],
)
def test_a_mapping_is_checked_like_the_declared_type(
    registry: Registry, payload: dict[str, object], complaint: str
) -> None:
    with pytest.raises(EncodeError, match=complaint):
        contract_of(registry, "system.health.heartbeat").check(payload)


def test_a_mapping_may_say_more_than_its_contract(registry: Registry) -> None:
    contract = contract_of(registry, "persistent://arc/audit/logs")
    contract.check({"user_id": "u", "action": "a", "resource": "r", "ip_address": "192.0.2.7"})


@pytest.mark.parametrize("tag", [None, "conversation-v2"])
def test_a_payload_without_its_schema_tag_is_refused(registry: Registry, tag: str | None) -> None:
    contract = registry.for_payload(ConversationEvent)
    assert contract is not None
    payload = {
        "conversation": {
            "id": "c",
            "session_id": "s",
            "user_id": "u",
            "agent_id": "a",
            "turn_index": 0,
        },
        "user_message": {"text": "Hello"},
        "agent_response": {"text": "Hi"},
    }
    contract.check({**payload, "schema": "conversation-v1"})
    with pytest.raises(EncodeError, match="schema"):
        contract.check({**payload, "schema": tag} if tag else payload)


def test_what_is_none_is_left_out_and_what_is_constant_is_written() -> None:
    assert msgspec.json.encode(Heartbeat(service="s", status="healthy")) == (
        b'{"service":"s","status":"healthy"}'
    )
    assert b'"schema":"conversation-v1"' in msgspec.json.encode(
        msgspec.convert(
            {
                "conversation": {
                    "id": "c",
                    "session_id": "s",
                    "user_id": "u",
                    "agent_id": "a",
                    "turn_index": 0,
                },
                "user_message": {"text": "Hello"},
                "agent_response": {"text": "Hi"},
            },
            ConversationEvent,
        )
    )
