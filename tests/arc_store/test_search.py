"""What `similar` finds is the same in every database and without one."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from arc_bus.errors import ConfigError
from arc_bus.servers import PostgresServer
from arc_store import Conversation, HashingEmbedder, InvalidField, Store, pg_search
from arc_store.migrations import ApproximateIndex, set_index

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
Turn = Callable[..., Conversation]
Axis = Callable[..., list[float]]


async def test_the_nearest_comes_first_with_its_cosine_distance(
    store: Store, turn: Turn, axis: Axis
) -> None:
    await store.conversations.save_many(
        [turn(0, embedding=axis(0)), turn(1, embedding=axis(0, 1.0)), turn(2, embedding=axis(7))]
    )
    found = await store.conversations.similar(axis(0), user_id="user-1")
    assert [match.turn.turn_index for match in found] == [0, 1, 2]
    assert [match.distance for match in found] == pytest.approx([0.0, 1 - 2**-0.5, 1.0], abs=1e-6)
    assert found[0].turn.user_input == "question 0"
    assert found[0].turn.embedding is None


async def test_turns_without_a_vector_are_not_found(store: Store, turn: Turn, axis: Axis) -> None:
    await store.conversations.save_many([turn(0), turn(1, embedding=axis(0))])
    found = await store.conversations.similar(axis(0), user_id="user-1")
    assert [match.turn.turn_index for match in found] == [1]


async def test_vectors_of_two_models_are_never_compared(
    store: Store, turn: Turn, axis: Axis
) -> None:
    await store.conversations.save_many(
        [turn(0, embedding=axis(0), embedding_model="other"), turn(1, embedding=axis(0))]
    )
    own = await store.conversations.similar(axis(0), user_id="user-1")
    other = await store.conversations.similar(axis(0), user_id="user-1", model="other")
    assert [match.turn.turn_index for match in own] == [1]
    assert own[0].turn.embedding_model == HashingEmbedder.model
    assert [match.turn.turn_index for match in other] == [0]


async def test_filters_leave_only_what_fulfils_them_all(
    store: Store, turn: Turn, axis: Axis
) -> None:
    await store.conversations.save_many(
        [
            turn(0, embedding=axis(0)),
            turn(1, embedding=axis(0), user_id="user-2"),
            turn(2, embedding=axis(0), agent_id="other"),
            turn(3, embedding=axis(0), session_id="session-2"),
            turn(4, embedding=axis(9)),
        ]
    )

    async def indexes(**filters: object) -> list[int]:
        found = await store.conversations.similar(axis(0), **filters)  # type: ignore[arg-type]
        return sorted(match.turn.turn_index for match in found)

    assert await indexes() == [0, 1, 2, 3, 4]
    assert await indexes(user_id="user-1") == [0, 2, 3, 4]
    assert await indexes(user_id="user-1", agent_id="other") == [2]
    assert await indexes(session_id="session-2") == [3]
    assert await indexes(since=MOMENT + timedelta(seconds=3)) == [3, 4]
    assert await indexes(until=MOMENT + timedelta(seconds=3)) == [0, 1, 2]
    assert await indexes(user_id="user-1", max_distance=0.5) == [0, 2, 3]
    assert await indexes(limit=1) in ([0], [1], [2], [3])
    assert await indexes(user_id="nobody") == []


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"max_distance": -0.1}, "max_distance"),
        ({"max_distance": float("nan")}, "max_distance"),
        ({"since": datetime(2026, 1, 1)}, "since"),
        ({"user_id": "a\x00"}, "user_id"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(
    store: Store, axis: Axis, filters: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidField, match=field):
        await store.conversations.similar(axis(0), **filters)  # type: ignore[arg-type]


@pytest.mark.parametrize("vector", [[], [0.0] * 1536, [1.0] * 1535, [float("nan")] * 1536, ["a"]])
async def test_a_vector_without_direction_is_refused(store: Store, vector: list[float]) -> None:
    with pytest.raises(InvalidField, match="embedding"):
        await store.conversations.similar(vector)


async def test_a_text_is_searched_through_the_embedder(store: Store, turn: Turn) -> None:
    embedder = HashingEmbedder()
    texts = ["what is the weather like today", "play some music", "book a table for two"]
    vectors = await embedder.embed(texts)
    await store.conversations.save_many(
        [
            turn(index, user_input=text, embedding=vector)
            for index, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
    )
    [best, *_] = await store.find_similar_conversations("the weather today?", user_id="user-1")
    assert best.turn.user_input == texts[0]


async def test_words_may_be_ranked_too(store: Store, turn: Turn, axis: Axis) -> None:
    await store.conversations.save_many(
        [
            turn(0, embedding=axis(0), user_input="hello there"),
            turn(1, embedding=axis(0, 0.2), user_input="my invoice number 4711"),
            turn(2, embedding=axis(5), user_input="nothing of the kind"),
        ]
    )
    plain = await store.conversations.similar(axis(0), user_id="user-1")
    assert plain[0].turn.turn_index == 0
    hybrid = await store.conversations.similar(axis(0), user_id="user-1", text="invoice 4711 & !(")
    assert hybrid[0].turn.turn_index == 1
    assert len(hybrid) == 3


async def test_a_text_without_an_embedder_says_what_is_missing() -> None:
    async with Store("memory://") as store:
        with pytest.raises(ConfigError, match="embedder"):
            await store.find_similar_conversations("hello")


def clustered(rng: random.Random, centres: list[list[float]]) -> list[float]:
    centre = rng.choice(centres)
    return [value + rng.gauss(0, 0.25) for value in centre]


async def index_scans(store: Store) -> int:
    """How often PostgreSQL has used an approximate index in this database."""
    assert store.engine is not None
    async with store.engine.connect() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
        await connection.commit()
        scans = await connection.scalar(
            text(
                "SELECT sum(idx_scan) FROM pg_stat_user_indexes"
                " WHERE indexrelname LIKE 'ix_conversations_embedding%'"
            )
        )
    return int(scans)


@pytest.mark.parametrize("kind", ["none", "vector", "halfvec"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_every_user_finds_all_their_nearest_turns_whatever_index_there_is(
    postgres_server: PostgresServer,
    make_database: Callable[..., str],
    turn: Turn,
    kind: ApproximateIndex,
    driver: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pg_search, "EXACT_UP_TO", 100)
    rng = random.Random(7)
    centres = [[rng.gauss(0, 1) for _ in range(1536)] for _ in range(20)]
    shares = {"large": 400, "middle": 60, "small": 4}
    url = make_database(driver)
    await set_index(url, kind)
    # So few rows are sorted faster than the index is read; this test wants the index.
    name = url.rpartition("/")[2]
    postgres_server.psql(f'ALTER DATABASE "{name}" SET enable_sort = off')
    async with Store(url) as store:
        for user, count in shares.items():
            turns = [
                turn(index, user_id=user, embedding=clustered(rng, centres))
                for index in range(count)
            ]
            for start in range(0, count, 300):
                await store.conversations.save_many(turns[start : start + 300])
        for user, count in shares.items():
            query = clustered(rng, centres)
            exact = await store.conversations.similar(query, user_id=user, exact=True)
            found = await store.conversations.similar(query, user_id=user)
            assert len(found) == len(exact) == min(10, count)
            hits = {m.turn.id for m in found} & {m.turn.id for m in exact}
            assert len(hits) >= (9 if user == "large" else len(exact))
        across = await store.conversations.similar(clustered(rng, centres))
        assert len(across) == 10
        wide = await store.conversations.similar(query, user_id="large", limit=60)
        assert len(wide) == 60
        if kind != "none":
            assert await index_scans(store) >= 2


async def test_a_user_who_had_too_many_turns_to_compare_is_found_whole_when_few_are_left(
    make_database: Callable[..., str], turn: Turn, axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_search, "EXACT_UP_TO", 20)
    url = make_database("psycopg")
    await set_index(url, "halfvec")
    async with Store(url) as store:
        turns = [turn(index, embedding=axis(index)) for index in range(30)]
        await store.conversations.save_many(turns)
        for _ in range(2):  # counted, and then remembered
            assert len(await store.conversations.similar(axis(0), user_id="user-1")) == 10
        await store.forget("user-1")
        await store.conversations.save_many(turns[:3])
        for _ in range(2):
            found = await store.conversations.similar(axis(0), user_id="user-1")
            assert [match.turn.turn_index for match in found][:1] == [0]
            assert len(found) == 3


_PLANS = text(
    "SELECT sum(generic_plans) FILTER (WHERE statement LIKE 'SELECT%'),"
    " sum(generic_plans) FILTER (WHERE statement LIKE 'WITH near%'),"
    " sum(custom_plans) FILTER (WHERE statement LIKE 'WITH near%')"
    " FROM pg_prepared_statements WHERE statement LIKE '%<=>%'"
)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_prepared_search_is_planned_once_but_one_by_the_index_each_time(
    postgres_server: PostgresServer,
    make_database: Callable[..., str],
    turn: Turn,
    axis: Axis,
    driver: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planning takes longer than comparing few turns; a plan for any user never takes the index."""
    monkeypatch.setattr(pg_search, "EXACT_UP_TO", 50)
    url = make_database(driver)
    await set_index(url, "halfvec")
    async with Store(url) as store:
        for user, count in (("large", 200), ("small", 12)):
            turns = [turn(index, user_id=user, embedding=axis(index)) for index in range(count)]
            await store.conversations.save_many(turns)
        postgres_server.psql("ANALYZE agents.conversations", url.rpartition("/")[2])
        async with store.transaction() as transaction:
            for _ in range(20):
                for user in ("small", "large"):
                    found = await transaction.conversations.similar(axis(3), user_id=user)
                    assert len(found) == 10
            generic_exact, generic, custom = (await transaction.session.execute(_PLANS)).one()
    assert generic_exact >= 5
    assert generic == 0
    assert custom >= 10
