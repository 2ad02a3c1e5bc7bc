"""Call: what one user says on one visit; the stand-in for a microphone and speech recognition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arc_bus.errors import ConfigError


class Call(msgspec.Struct, frozen=True):
    """One session: a user, and the utterances in the order in which they are said."""

    user_id: str
    utterances: list[str]


def read_calls(path: Path) -> list[Call]:
    """Return the calls in a file of `user: utterance` lines; a blank line ends a call.

    Raises ConfigError, naming the line that is neither.
    """
    calls: list[Call] = []
    fresh = True
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"utterances {str(path)!r} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        user, colon, said = (part.strip() for part in line.partition(":"))
        if not line.strip():
            fresh = True
        elif not (user and colon and said):
            raise ConfigError(f"{path.name}, line {number}: {line!r} is not `user: utterance`")
        elif fresh or user != calls[-1].user_id:
            calls.append(Call(user, [said]))
            fresh = False
        else:
            calls[-1].utterances.append(said)
    if not calls:
        raise ConfigError(f"{path.name} has no utterance; write one as `user: utterance`")
    return calls


def expected(calls: Sequence[Call]) -> Counter[str]:
    """Return how many messages these calls mean, by destination."""
    turns = sum(len(call.utterances) for call in calls)
    each_call = (
        "agent.voice.session.started",
        "agent.voice.track.published",
        "agent.voice.track.unpublished",
        "agent.voice.session.ended",
        "persistent://arc/analytics/session-metrics",
        "persistent://arc/audit/logs",
    )
    each_turn = (
        "agent.brain.request",
        "agent.tts.request",
        "agent.tts.completed",
        "persistent://arc/events/conversations",
        "persistent://arc/audit/compliance-events",
    )
    return Counter({**dict.fromkeys(each_call, len(calls)), **dict.fromkeys(each_turn, turns)})
