"""What is known of one call, and what it comes to in numbers when it is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from arc_bus.contracts import (
    ConnectionQuality,
    ConversationStats,
    MeasuredSession,
    PerformanceMetrics,
    SessionMetrics,
)
from voice.ledger import Turn

AGENT = "arc-scarlett-voice"
TARGET_MS = 1000.0


class Room:
    """A room with one user in it; LiveKit would give the ids, these are made up."""

    def __init__(self, user_id: str) -> None:
        """Open a room for `user_id` now."""
        self.user_id = user_id
        self.session_id = str(uuid4())
        self.name = f"call-{user_id}"
        self.sid = f"RM_{uuid4().hex[:12]}"
        self.participant_sid = f"PA_{uuid4().hex[:12]}"
        self.track_sid = f"TR_{uuid4().hex[:12]}"
        self.started = datetime.now(UTC)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of `values`; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def session_metrics(room: Room, turns: Sequence[Turn]) -> SessionMetrics:
    """Return the call in numbers, as it ends now. A stand-in has no network to measure."""
    ended = datetime.now(UTC)
    latencies = [1000 * turn.seconds for turn in turns]
    words = [len(text.split()) for turn in turns for text in (turn.said, turn.answer)]
    count = max(1, len(turns))
    return SessionMetrics(
        session=MeasuredSession(
            id=room.session_id,
            user_id=room.user_id,
            agent_id=AGENT,
            room_name=room.name,
            room_sid=room.sid,
            started_at=room.started.isoformat(),
            ended_at=ended.isoformat(),
            duration_seconds=(ended - room.started).total_seconds(),
        ),
        conversation_stats=ConversationStats(
            total_turns=len(turns),
            user_messages=len(turns),
            agent_messages=sum(bool(turn.answer) for turn in turns),
            avg_turn_length_words=sum(words) / max(1, len(words)),
            total_tokens_used=sum(words),
        ),
        performance_metrics=PerformanceMetrics(
            avg_latency_ms=sum(latencies) / count,
            p50_latency_ms=percentile(latencies, 50),
            p95_latency_ms=percentile(latencies, 95),
            p99_latency_ms=percentile(latencies, 99),
            max_latency_ms=max(latencies, default=0.0),
            avg_stt_latency_ms=0,
            avg_llm_latency_ms=0,
            avg_tts_latency_ms=0,
            sla_compliance_percent=100 * sum(ms <= TARGET_MS for ms in latencies) / count,
            target_latency_ms=TARGET_MS,
        ),
        connection_quality=ConnectionQuality(
            avg_packet_loss_percent=0,
            avg_jitter_ms=0,
            connection_type="stand-in",
            reconnect_count=0,
            quality_rating="good",
        ),
    )
