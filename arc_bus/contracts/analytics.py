"""What is measured of sessions and agents, and anything else that a service wants counted."""

from __future__ import annotations

from typing import Literal, TypeAlias

from arc_bus.contracts.fields import (
    Amount,
    Count,
    JsonObject,
    Moment,
    Payload,
    Percent,
    Text,
    always,
)
from arc_bus.contracts.registry import Contract
from arc_bus.envelope import utc_now


class MeasuredSession(Payload, frozen=True, kw_only=True):
    """Which session was measured, and when it was."""

    id: Text
    user_id: Text
    agent_id: Text
    room_name: Text
    room_sid: Text
    started_at: Moment
    ended_at: Moment
    duration_seconds: Amount


class ConversationStats(Payload, frozen=True, kw_only=True):
    """How much was said."""

    total_turns: Count
    user_messages: Count
    agent_messages: Count
    avg_turn_length_words: Amount
    total_tokens_used: Count


class PerformanceMetrics(Payload, frozen=True, kw_only=True):
    """How fast the agent answered; milliseconds, and the share of turns within the target."""

    avg_latency_ms: Amount
    p50_latency_ms: Amount
    p95_latency_ms: Amount
    p99_latency_ms: Amount
    max_latency_ms: Amount
    avg_stt_latency_ms: Amount
    avg_llm_latency_ms: Amount
    avg_tts_latency_ms: Amount
    sla_compliance_percent: Percent
    target_latency_ms: Amount


class ConnectionQuality(Payload, frozen=True, kw_only=True):
    """How good the line was; `quality_rating` is excellent, good, fair or poor."""

    avg_packet_loss_percent: Percent
    avg_jitter_ms: Amount
    connection_type: str
    reconnect_count: Count
    quality_rating: str


class SessionMetrics(Payload, frozen=True, kw_only=True):
    """One session in numbers, at its end; kept 90 days, partitioned by date.

    Example:
        SessionMetrics(
            session=MeasuredSession(id="session-1", user_id="user-123",
                agent_id="arc-scarlett-voice", room_name="daily-standup", room_sid="RM_1",
                started_at="2026-01-01T10:00:00Z", ended_at="2026-01-01T10:05:20Z",
                duration_seconds=320),
            conversation_stats=ConversationStats(total_turns=8, user_messages=8,
                agent_messages=8, avg_turn_length_words=11.5, total_tokens_used=2400),
            performance_metrics=PerformanceMetrics(avg_latency_ms=640, p50_latency_ms=610,
                p95_latency_ms=900, p99_latency_ms=980, max_latency_ms=1010,
                avg_stt_latency_ms=120, avg_llm_latency_ms=380, avg_tts_latency_ms=95,
                sla_compliance_percent=97.5, target_latency_ms=1000),
            connection_quality=ConnectionQuality(avg_packet_loss_percent=0.2, avg_jitter_ms=4,
                connection_type="wifi", reconnect_count=0, quality_rating="good"))
    """

    schema: Literal["session-metrics-v1"] = always("session-metrics-v1")
    session: MeasuredSession
    conversation_stats: ConversationStats
    performance_metrics: PerformanceMetrics
    connection_quality: ConnectionQuality
    resource_usage: JsonObject | None = None
    user_experience: JsonObject | None = None


class AgentPerformance(Payload, frozen=True, kw_only=True):
    """One agent in numbers over `aggregation_period`, from `time_bucket` on; kept 90 days.

    Example:
        AgentPerformance(aggregation_period="1h", time_bucket="2026-01-01T10:00:00Z",
            agent_id="arc-sherlock-brain", instance_id="brain-1",
            metrics={"requests": 1200}, resource_usage={"cpu_percent": 34.5})
    """

    schema: Literal["agent-performance-v1"] = always("agent-performance-v1")
    aggregation_period: Text
    time_bucket: Moment
    agent_id: Text
    instance_id: Text
    metrics: JsonObject
    resource_usage: JsonObject


AnalyticsEvent: TypeAlias = JsonObject
"""Any JSON object: the payload of `persistent://arc/analytics/<metric-type>`."""


def _date(_payload: object) -> str:
    """Return the UTC date of publishing, which is that of the envelope's timestamp."""
    return utc_now()[:10]


CONTRACTS = (
    Contract(
        destination="persistent://arc/analytics/session-metrics",
        payload=SessionMetrics,
        event_type="analytics_session-metrics",
        key=_date,
        schema="session-metrics-v1",
        partitions=8,
        retention_days=90,
    ),
    Contract(
        destination="persistent://arc/analytics/agent-performance",
        payload=AgentPerformance,
        event_type="analytics_agent-performance",
        key="agent_id",
        schema="agent-performance-v1",
        partitions=4,
        retention_days=90,
    ),
    Contract(
        destination="persistent://arc/analytics/*",
        payload=dict,
        event_type="analytics_*",
        retention_days=90,
    ),
)
"""Durable topics of the namespace `analytics`."""
