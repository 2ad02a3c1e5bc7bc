"""PgSearch: nearest turns by pgvector: exact through the b-tree, approximate where that pays.

Measured with 10,000 turns of 1536 dimensions: the exact scan of one user's rows by the b-tree
takes 0.1 ms up to 1 % of the table and never misses one; HNSW under a filter on the user returned
0 to 9 of 10. So HNSW serves only users with many turns, and searches across users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import (
    Boolean,
    Double,
    Integer,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine, UserDefinedType

from arc_store.conversations import SELECT_PLAIN, loaded
from arc_store.database import Run, Work
from arc_store.direct import Fetch, Rows
from arc_store.embedding import DIMENSIONS, Embedding
from arc_store.engine import HNSW_SETTINGS
from arc_store.models import Conversation
from arc_store.search import Match, Search, merge_ranks
from arc_store.upsert import TURNS

EXACT_UP_TO = 2000
"""Turns of one user that are still compared one by one: 1.2 µs each, 2.4 ms at the most, or
4 µs each where they were written before their vectors were kept inside the row."""

_DOUBLE: Double[float] = Double()
_RERANKED = 2
"""How many times `limit` the halfvec index proposes, for exact distances to choose from."""
_MANY_KEPT = 10_000


class Index(StrEnum):
    """The approximate index that the database has."""

    NONE = "none"
    VECTOR = "vector"
    HALFVEC = "halfvec"


class _Halfvec(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_kw: object) -> str:
        return f"HALFVEC({DIMENSIONS})"


class PgSearch:
    """Finds the nearest turns; `index` is set when the schema was looked at."""

    def __init__(self, *, set_at_connect: bool = False) -> None:
        """Know of no index yet; `set_at_connect`: connections come with `HNSW_SETTINGS`."""
        self.index = Index.NONE
        self._set_at_connect = set_at_connect
        self._many: set[str] = set()
        """Users whose turns were too many to compare: asked of the index at once next time. Being
        wrong about one costs time, never a match."""

    async def __call__(self, run: Run, search: Search) -> Sequence[Match]:
        """Return the matches, the nearest first, never fewer than there are."""
        near = await self._near(run, search)
        if search.text is not None:
            parameters = {**_parameters(search), "text": search.text}
            worded = _matches(await run(Fetch(_worded(_names(search)), parameters)))
            near = merge_ranks(near, worded, search.limit)
        # Outside the query: a threshold inside would defeat the index.
        most = search.max_distance
        return near if most is None else [match for match in near if match.distance <= most]

    async def _near(self, run: Run, search: Search) -> list[Match]:
        names, parameters, user = _names(search), _parameters(search), search.user_id
        if self.index is Index.NONE or search.exact:
            return _matches(await run(Fetch(_exact(names), parameters)))
        if user is not None and user not in self._many:
            # Nothing found means: no turns, or too many to compare. The index knows which.
            guarded = {**parameters, "few": EXACT_UP_TO}
            near = _matches(await run(Fetch(_exact_if_few(names), guarded)))
            if near:
                return near
        near = _matches(await run(self._by_index(search), atomic=not self._in_one_trip(search)))
        if len(near) == search.limit:
            self._remember(user)
            return near
        self._many.discard(user or "")
        return _matches(await run(Fetch(_exact(names), parameters)))

    def _remember(self, user: str | None) -> None:
        if user is not None:
            if len(self._many) >= _MANY_KEPT:
                self._many.clear()
            self._many.add(user)

    def _in_one_trip(self, search: Search) -> bool:
        return self._set_at_connect and _ef_search(search) == _EF_SEARCH

    def _by_index(self, search: Search) -> Work[Rows]:
        parameters = {**_parameters(search), "seen": True}
        find = Fetch(_approximate(_names(search), self.index), parameters)

        async def in_transaction(connection: AsyncConnection) -> Rows:
            await connection.execute(_SET, _settings(search))
            return await find(connection)

        return find if self._in_one_trip(search) else in_transaction


_EF_SEARCH = int(HNSW_SETTINGS["hnsw.ef_search"])

_SET = select(
    *(
        func.set_config(name, bindparam(name.replace(".", "_"), type_=Text), True)
        for name in HNSW_SETTINGS
    )
)


def _settings(search: Search) -> dict[str, str]:
    """Return what makes the index go on until it has enough; only for this transaction."""
    told = {**HNSW_SETTINGS, "hnsw.ef_search": str(_ef_search(search))}
    return {name.replace(".", "_"): value for name, value in told.items()}


def _ef_search(search: Search) -> int:
    return min(1000, max(_EF_SEARCH, 2 * search.limit))


_FILTERS: dict[str, Callable[[], Any]] = {
    "model": lambda: TURNS.c.embedding_model == bindparam("model"),
    "user_id": lambda: TURNS.c.user_id == bindparam("user_id"),
    "agent_id": lambda: TURNS.c.agent_id == bindparam("agent_id"),
    "session_id": lambda: TURNS.c.session_id == bindparam("session_id"),
    "since": lambda: TURNS.c.created_at >= bindparam("since"),
    "until": lambda: TURNS.c.created_at < bindparam("until"),
}


def _parameters(search: Search) -> dict[str, object]:
    given = {name: getattr(search, name) for name in _names(search)}
    return {**given, "query": search.embedding, "most": search.limit}


def _names(search: Search) -> tuple[str, ...]:
    """Return which filters are given: statements are built once for each choice of them."""
    return tuple(name for name in _FILTERS if getattr(search, name) is not None)


def _unseen(name: str, kind: type[TypeEngine[Any]]) -> Any:
    """Return a parameter behind a SELECT, so that no plan depends on its value.

    Then one plan is as good as another, and PostgreSQL keeps that of a prepared statement instead
    of making one each time, which takes longer than to compare fifty turns.
    """
    return select(bindparam(name, type_=kind)).scalar_subquery()


def _of_user() -> Any:
    return TURNS.c.user_id == _unseen("user_id", Text)


def _distance() -> Any:
    query = bindparam("query", type_=Embedding)
    return TURNS.c.embedding.op("<=>", return_type=_DOUBLE)(query)


def _candidates(names: tuple[str, ...], distance: Any) -> Any:
    return SELECT_PLAIN.add_columns(distance.label("distance")).where(
        TURNS.c.embedding.is_not(None),
        *(_FILTERS[name]() for name in names),
        # IS NOT DISTINCT FROM would say it in one, but the planner takes it for one row in all.
        *([] if "model" in names else [TURNS.c.embedding_model.is_(None)]),
    )


@cache
def _exact(names: tuple[str, ...]) -> Any:
    # "+ 0" keeps the planner from an approximate index: the expression is no longer the index's.
    distance = _distance() + literal_column("0")
    query = _candidates(tuple(name for name in names if name != "user_id"), distance)
    if "user_id" in names:
        query = query.where(_of_user())
    return query.order_by(text("distance"), TURNS.c.id).limit(_unseen("most", Integer))


@cache
def _exact_if_few(names: tuple[str, ...]) -> Any:
    """Compare one by one unless the user has more than `few` turns: PostgreSQL looks first."""
    few = _unseen("few", Integer)
    some = select(TURNS.c.id).where(_of_user()).limit(few + literal_column("1")).subquery()
    count = select(func.count()).select_from(some).scalar_subquery()
    return _exact(names).where(count <= few)


def _planned_each_time() -> Any:
    """Return a condition that is met, and keeps PostgreSQL from a plan for any parameters.

    Such a plan of a prepared statement, which comes after five runs and never takes the index,
    takes 19.5 ms instead of 1. Where the planner sees the parameters the condition is nothing;
    where it does not, it looks like counting a thousand million rows, so that it is never chosen.
    """
    dear = literal_column("(SELECT count(*) FROM generate_series(1, 1000000000)) > 0", Boolean)
    return or_(bindparam("seen", type_=Boolean), dear)


@cache
def _approximate(names: tuple[str, ...], index: Index) -> Any:
    most = bindparam("most", type_=Integer)
    proposed: Any = most
    order = _distance()
    if index is Index.HALFVEC:
        half = _Halfvec()
        query = cast(bindparam("query", type_=Embedding), Embedding)
        order = cast(TURNS.c.embedding, half).op("<=>", return_type=_DOUBLE)(cast(query, half))
        proposed = most * literal_column(str(_RERANKED))
    near = _candidates(names, _distance()).where(_planned_each_time())
    near = near.order_by(order).limit(proposed)
    inner = near.cte("near").prefix_with("MATERIALIZED")
    ordered = select(inner).order_by(inner.c.distance, inner.c.id)
    return ordered.limit(most)


@cache
def _worded(names: tuple[str, ...]) -> Any:
    """Rank by the words they share with the text; `simple` knows no language, so it suits all."""
    words = func.to_tsvector("simple", TURNS.c.user_input + " " + TURNS.c.agent_response)
    all_words = cast(func.plainto_tsquery("simple", bindparam("text", type_=Text)), Text())
    wanted = func.to_tsquery("simple", func.replace(all_words, " & ", " | "))
    query = _candidates(names, _distance()).where(words.op("@@")(wanted))
    ranked = query.order_by(func.ts_rank(words, wanted).desc(), TURNS.c.id)
    return ranked.limit(bindparam("most", type_=Integer))


def _matches(rows: Rows) -> list[Match]:
    found: list[Match] = []
    for values in rows:
        distance = values.pop("distance")
        if math.isnan(distance):
            continue  # a vector without a direction, from before the database refused it
        found.append(Match(loaded(Conversation, values), distance))
    return found
