"""What the voice agent (`arc-scarlett-voice`) says about rooms, tracks and sessions."""

from __future__ import annotations

from arc_bus.contracts.fields import Amount, Count, JsonObject, Payload, Text, always
from arc_bus.contracts.registry import Contract


class TrackPublished(Payload, frozen=True, kw_only=True):
    """A participant's audio track can be heard: speech recognition may start.

    `metadata` holds user_id, session_id and whatever else the publisher knows.

    Example:
        TrackPublished(room_name="daily-standup", room_sid="RM_1", participant_sid="PA_1",
            participant_identity="user-123", track_sid="TR_1", metadata={"user_id": "user-123"})
    """

    event: Text = always("track_published")
    room_name: Text
    room_sid: Text
    participant_sid: Text
    participant_identity: Text
    track_sid: Text
    track_kind: Text = always("audio")
    track_source: Text = always("microphone")
    metadata: JsonObject | None = None


class TrackUnpublished(Payload, frozen=True, kw_only=True):
    """A track has ended after `duration_seconds`; `reason` is `user_disconnected` or the like.

    Example:
        TrackUnpublished(room_name="daily-standup", participant_sid="PA_1", track_sid="TR_1",
            reason="user_disconnected", duration_seconds=320)
    """

    event: Text = always("track_unpublished")
    room_name: Text
    participant_sid: Text
    track_sid: Text
    reason: Text
    duration_seconds: Amount


class SessionStarted(Payload, frozen=True, kw_only=True):
    """A user and an agent have met in a room.

    Example:
        SessionStarted(user_id="user-123", session_id="session-1", room_name="daily-standup",
            room_sid="RM_1", participant_sid="PA_1")
    """

    event: Text = always("session_started")
    user_id: Text
    session_id: Text
    room_name: Text
    room_sid: Text
    participant_sid: Text
    agent_id: Text = always("arc-scarlett-voice")


class SessionEnded(Payload, frozen=True, kw_only=True):
    """The session is over after `duration_seconds`.

    `reason` is `user_left`, `timeout` or the like, `final_status` `completed` or the like.

    Example:
        SessionEnded(user_id="user-123", session_id="session-1", room_name="daily-standup",
            duration_seconds=320, total_turns=8, reason="user_left", final_status="completed")
    """

    event: Text = always("session_ended")
    user_id: Text
    session_id: Text
    room_name: Text
    duration_seconds: Amount
    total_turns: Count
    reason: Text
    final_status: Text


CONTRACTS = (
    Contract(
        destination="agent.voice.track.published",
        payload=TrackPublished,
        event_type="track_published",
    ),
    Contract(
        destination="agent.voice.track.unpublished",
        payload=TrackUnpublished,
        event_type="track_unpublished",
    ),
    Contract(
        destination="agent.voice.session.started",
        payload=SessionStarted,
        event_type="session_started",
    ),
    Contract(
        destination="agent.voice.session.ended",
        payload=SessionEnded,
        event_type="session_ended",
    ),
)
"""Ephemeral subjects of the voice agent."""
