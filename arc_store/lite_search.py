"""LiteSearch: nearest turns on SQLite, compared one by one in Python.

For tests, demos and single machines: 0.1 ms for each turn that fulfils the filters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from arc_store.conversations import SELECT_PLAIN, loaded
from arc_store.database import Run
from arc_store.models import Conversation
from arc_store.search import Match, Search, merge_ranks
from arc_store.similarity import distances, overlap, words
from arc_store.upsert import TURNS


class LiteSearch:
    """Finds the nearest turns without an index."""

    async def __call__(self, run: Run, search: Search) -> Sequence[Match]:
        """Return the matches, the nearest first."""
        query = SELECT_PLAIN.add_columns(TURNS.c.embedding).where(
            TURNS.c.embedding.is_not(None),
            TURNS.c.embedding_model.is_not_distinct_from(search.model),
        )
        for name in ("user_id", "agent_id", "session_id"):
            value = getattr(search, name)
            if value is not None:
                query = query.where(TURNS.c[name] == value)
        if search.since is not None:
            query = query.where(TURNS.c.created_at >= search.since)
        if search.until is not None:
            query = query.where(TURNS.c.created_at < search.until)

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            rows = (await connection.execute(query)).mappings()
            return [dict(row) for row in rows]

        return await asyncio.to_thread(rank, await run(work), search)


def rank(rows: Iterable[dict[str, Any]], search: Search) -> list[Match]:
    """Return the best of `rows`, which fulfil the filters and have their vectors."""
    kept = list(rows)
    vectors = [row["embedding"] for row in kept]
    matches: list[Match] = []
    for row, distance in zip(kept, distances(search.embedding, vectors), strict=True):
        if search.max_distance is None or distance <= search.max_distance:
            values = {name: value for name, value in row.items() if name != "embedding"}
            matches.append(Match(loaded(Conversation, values), distance))
    matches.sort(key=lambda match: (match.distance, match.turn.id))
    near = matches[: search.limit]
    if search.text is None:
        return near
    return merge_ranks(near, _worded(matches, search.text, search.limit), search.limit)


def _worded(matches: Sequence[Match], text: str, limit: int) -> list[Match]:
    wanted = words(text)
    scored = [
        (overlap(wanted, f"{match.turn.user_input} {match.turn.agent_response}"), match)
        for match in matches
    ]
    shared = [pair for pair in scored if pair[0]]
    shared.sort(key=lambda pair: (-pair[0], pair[1].turn.id))
    return [match for _, match in shared[:limit]]
