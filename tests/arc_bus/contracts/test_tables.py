"""The payload types against the two tables of the contracts, transcribed here field by field."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from arc_bus.contracts import Contract, builtin

# `?` is optional, `=` has a default (an older service may leave it out), braces are a group, and
# `{...}` is an object that is not fixed.
NATS = {
    "agent.voice.track.published": (
        "event= room_name room_sid participant_sid participant_identity track_sid"
        " track_kind= track_source= metadata?{...}"
    ),
    "agent.voice.track.unpublished": (
        "event= room_name participant_sid track_sid reason duration_seconds"
    ),
    "agent.voice.session.started": (
        "event= user_id session_id room_name room_sid participant_sid agent_id="
    ),
    "agent.voice.session.ended": (
        "event= user_id session_id room_name duration_seconds total_turns reason final_status"
    ),
    "agent.brain.request": (
        "request_id user_id session_id conversation_id turn_index user_input"
        " context?{ previous_turns={ user agent } user_profile?{...} }"
        " constraints?{ max_tokens= temperature= timeout_ms= }"
    ),
    "agent.brain.response": (
        "request_id user_id session_id conversation_id turn_index agent_response"
        " metadata?{ llm_model tokens_used reasoning_steps tools_called confidence_score }"
        " performance?{ llm_latency_ms total_processing_ms }"
    ),
    "agent.brain.error": "request_id error_type error_message retry_count fallback_response?",
    "agent.tts.request": (
        "request_id text voice_id session_id target_room"
        " constraints?{ max_latency_ms= format= sample_rate= }"
    ),
    "agent.tts.completed": (
        "request_id audio_track_sid duration_ms synthesis_latency_ms audio_format"
        " ready_for_playback"
    ),
    "system.health.heartbeat": "service status metrics?{...}",
    "system.service.error": "service error_type error_message severity action_required?",
}
PULSAR = {
    "persistent://arc/events/conversations": (
        "schema= conversation{ id session_id user_id agent_id turn_index }"
        " user_message{ text audio_duration_ms? stt_model? stt_confidence? stt_latency_ms? }"
        " agent_response{ text llm_model? llm_tokens_used? llm_latency_ms? tts_model?"
        " tts_audio_duration_ms? tts_latency_ms? }"
        " context?{ previous_turn_count context_tokens_used tools_invoked embedding_vector_id }"
        " performance?{ total_latency_ms stt_latency_ms llm_latency_ms tts_latency_ms"
        " network_overhead_ms }"
        " metadata?{ room_name participant_sid trace_id environment region }"
    ),
    "persistent://arc/events/agent-lifecycle": (
        "schema= event_type service{ name instance_id version node }"
        " event_details{ type reason previous_state current_state }"
        " health?{ cpu_limit memory_limit dependencies_healthy }"
    ),
    "persistent://arc/events/livekit-webhooks": (
        "schema= event webhook_payload{...}"
        " metadata{ webhook_id received_at processing_latency_ms }"
    ),
    "persistent://arc/analytics/session-metrics": (
        "schema= session{ id user_id agent_id room_name room_sid started_at ended_at"
        " duration_seconds }"
        " conversation_stats{ total_turns user_messages agent_messages avg_turn_length_words"
        " total_tokens_used }"
        " performance_metrics{ avg_latency_ms p50_latency_ms p95_latency_ms p99_latency_ms"
        " max_latency_ms avg_stt_latency_ms avg_llm_latency_ms avg_tts_latency_ms"
        " sla_compliance_percent target_latency_ms }"
        " connection_quality{ avg_packet_loss_percent avg_jitter_ms connection_type"
        " reconnect_count quality_rating }"
        " resource_usage?{...} user_experience?{...}"
    ),
    "persistent://arc/analytics/agent-performance": (
        "schema= aggregation_period time_bucket agent_id instance_id metrics{...}"
        " resource_usage{...}"
    ),
    "persistent://arc/analytics/*": "{...}",
    "persistent://arc/audit/compliance-events": (
        "schema= event_type actor{ type service_name instance_id authenticated_as }"
        " action{ type operation resource resource_id reason }"
        " data_accessed?{ tables row_count columns pii_fields }"
        " compliance?{ legal_basis data_retention_policy encryption anonymization }"
        " context?{ trace_id user_consent_id session_id }"
    ),
    "persistent://arc/audit/logs": "user_id action resource",
}

# event type(s), schema tag, partition key, partitions, retention in days
TOPICS = {
    "persistent://arc/events/conversations": (
        "conversation_turn_completed",
        "conversation-v1",
        16,
        30,
    ),
    "persistent://arc/events/agent-lifecycle": (
        "service_started service_stopped service_crashed service_health_degraded service_recovered",
        "agent-lifecycle-v1",
        4,
        90,
    ),
    "persistent://arc/events/livekit-webhooks": ("", "livekit-webhook-v1", 4, 7),
    "persistent://arc/analytics/session-metrics": (
        "analytics_session-metrics",
        "session-metrics-v1",
        8,
        90,
    ),
    "persistent://arc/analytics/agent-performance": (
        "analytics_agent-performance",
        "agent-performance-v1",
        4,
        90,
    ),
    "persistent://arc/analytics/*": ("analytics_*", None, None, 90),
    "persistent://arc/audit/compliance-events": (
        "user_data_accessed user_data_modified user_data_deleted user_consent_granted"
        " user_consent_revoked data_export_requested data_anonymization_executed",
        "compliance-audit-v1",
        32,
        2557,
    ),
    "persistent://arc/audit/logs": ("audit_log", None, 4, 2557),
}

CONTRACTS = {contract.destination: contract for contract in builtin()}


def described(payload: Any) -> str:
    """Return the fields of a type in the notation of the tables above."""
    if not (isinstance(payload, type) and issubclass(payload, msgspec.Struct)):
        return "{...}"
    words: list[str] = []
    for field in msgspec.structs.fields(payload):
        mark = "" if field.required else "?" if field.default is None else "="
        group = grouped(msgspec.inspect.type_info(field.type))
        words.append(f"{field.name}{mark}{group}")
    return " ".join(words)


def grouped(kind: msgspec.inspect.Type) -> str:
    """Return the braces of a field whose type is a group, an empty text otherwise."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return grouped(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return "".join(grouped(option) for option in kind.types)
    if isinstance(kind, msgspec.inspect.ListType):
        return grouped(kind.item_type)
    if isinstance(kind, msgspec.inspect.DictType):
        return "{...}"
    if isinstance(kind, msgspec.inspect.StructType):
        return f"{{ {described(kind.cls)} }}"
    return ""


def test_every_row_of_both_tables_has_a_contract_and_no_contract_is_without_a_row() -> None:
    assert sorted(CONTRACTS) == sorted({**NATS, **PULSAR})


@pytest.mark.parametrize("destination", [*NATS, *PULSAR])
def test_the_payload_has_the_fields_of_its_row(destination: str) -> None:
    assert described(CONTRACTS[destination].payload) == {**NATS, **PULSAR}[destination]


@pytest.mark.parametrize("destination", NATS)
def test_an_ephemeral_subject_has_its_event_type_and_nothing_of_a_topic(destination: str) -> None:
    words = destination.split(".")[1:]
    expected = "_".join(words[-2:] if words[0] != "health" else words[-1:])
    contract = CONTRACTS[destination]
    assert contract == Contract(
        destination=destination, payload=contract.payload, event_type=expected
    )


@pytest.mark.parametrize("destination", TOPICS)
def test_a_topic_has_the_tag_partitions_and_retention_of_its_row(destination: str) -> None:
    contract = CONTRACTS[destination]
    types = " ".join(contract.event_types) or contract.event_type or ""
    assert (types, contract.schema, contract.partitions, contract.retention_days) == (
        TOPICS[destination]
    )


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda contract: contract.destination)
def test_every_payload_is_documented_and_shows_an_example_that_its_contract_accepts(
    contract: Contract,
) -> None:
    if contract.payload is dict:
        return
    text = contract.payload.__doc__
    assert text is not None
    example = re.search(r"Example:\n(.*)", text, re.DOTALL)
    assert example is not None, f"{contract.payload.__name__} has no example"
    import arc_bus.contracts

    names = {name: getattr(arc_bus.contracts, name) for name in arc_bus.contracts.__all__}
    payload = eval(re.sub(r"\s+", " ", example[1]).strip(), names)
    assert type(payload) is contract.payload
    contract.check(payload)
