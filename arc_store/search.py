"""Search: what is asked of `conversations.similar`, and Match: what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

import msgspec

from arc_store import fields
from arc_store.embedding import to_floats
from arc_store.errors import InvalidField
from arc_store.models import Conversation
from arc_store.page import check_limit


class Filters(TypedDict, total=False):
    """The keywords of `conversations.similar`; each is the `Search` field of the same name."""

    user_id: str | None
    agent_id: str | None
    session_id: str | None
    since: datetime | None
    until: datetime | None
    limit: int
    max_distance: float | None
    model: str | None
    text: str | None
    exact: bool


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """A vector and what the turns near it must fulfil.

    Only turns with a vector of `model` are compared (None: turns whose model is not named).
    `since` is included, `until` is not. `max_distance` is a cosine distance, from 0 (same
    direction) to 2 (opposite). `text` adds a full-text ranking of the same turns and merges both
    by reciprocal rank (Cormack et al., 2009). `exact` never uses the approximate index.
    """

    embedding: Sequence[float]
    user_id: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 10
    max_distance: float | None = None
    model: str | None = None
    text: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        """Refuse what no search can mean."""
        to_floats("embedding", self.embedding)
        check_limit(self.limit)
        for name in ("user_id", "agent_id", "session_id", "model", "text"):
            value: str | None = getattr(self, name)
            if value is not None:
                fields.text(name, value)
        for name in ("since", "until"):
            moment: datetime | None = getattr(self, name)
            if moment is not None:
                fields.moment(name, moment)
        if self.max_distance is not None and not 0 <= self.max_distance <= 2:
            raise InvalidField("max_distance", f"{self.max_distance} is not between 0 and 2")


class Match(msgspec.Struct, frozen=True):
    """A turn that was found, and its cosine distance, from 0 to 2. The turn has no vector."""

    turn: Conversation
    distance: float


_RANK_OFFSET = 60


def merge_ranks(near: Sequence[Match], worded: Sequence[Match], limit: int) -> list[Match]:
    """Return both lists merged by reciprocal rank, with 60 as its constant, best first.

    From Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009.
    """
    scores: dict[object, float] = {}
    found: dict[object, Match] = {}
    for ranking in (near, worded):
        for rank, match in enumerate(ranking, start=1):
            key = match.turn.id
            scores[key] = scores.get(key, 0.0) + 1.0 / (_RANK_OFFSET + rank)
            found.setdefault(key, match)
    best = sorted(found, key=lambda key: (-scores[key], found[key].distance))
    return [found[key] for key in best[:limit]]
