"""What is asked of speech synthesis (`arc-piper-tts`), and what it reports."""

from __future__ import annotations

from arc_bus.contracts.fields import Amount, Count, Payload, Text, always
from arc_bus.contracts.registry import Contract


class TtsConstraints(Payload, frozen=True, kw_only=True):
    """Limits and format of one synthesis: milliseconds, codec, samples a second."""

    max_latency_ms: Amount = always(500)
    format: Text = always("opus")
    sample_rate: Count = always(24000)


class TtsRequest(Payload, frozen=True, kw_only=True):
    """Say `text` with `voice_id` in the room `target_room`.

    Example:
        TtsRequest(request_id="req-1", text="Sunny and mild.", voice_id="en_US-amy",
            session_id="session-1", target_room="daily-standup", constraints=TtsConstraints())
    """

    request_id: Text
    text: Text
    voice_id: Text
    session_id: Text
    target_room: Text
    constraints: TtsConstraints | None = None


class TtsCompleted(Payload, frozen=True, kw_only=True):
    """The audio for the `TtsRequest` of the same `request_id` is there.

    Example:
        TtsCompleted(request_id="req-1", audio_track_sid="TR_2", duration_ms=1800,
            synthesis_latency_ms=95, audio_format="opus", ready_for_playback=True)
    """

    request_id: Text
    audio_track_sid: Text
    duration_ms: Amount
    synthesis_latency_ms: Amount
    audio_format: Text
    ready_for_playback: bool


CONTRACTS = (
    Contract(destination="agent.tts.request", payload=TtsRequest, event_type="tts_request"),
    Contract(destination="agent.tts.completed", payload=TtsCompleted, event_type="tts_completed"),
)
"""Ephemeral subjects of speech synthesis."""
