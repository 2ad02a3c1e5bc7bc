"""Reading an envelope's timestamp as an age."""

from __future__ import annotations

from datetime import datetime


def seconds_since(timestamp: str, now: float) -> float | None:
    """Return how many seconds before `now` (Unix time) an RFC 3339 `timestamp` was, at least 0.

    None if it is no timestamp. Clocks of two machines differ: what seems to come from the future
    counts as 0.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0.0, now - moment.timestamp())
