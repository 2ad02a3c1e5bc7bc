"""Hostile input is kept as it is, or refused by its field's name; it never becomes SQL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_store import Conversation, InvalidField, Store

Turn = Callable[..., Conversation]

INJECTIONS = [
    "'; DROP TABLE agents.conversations; --",
    '" OR ""="',
    "%",
    "_ser-1",
    "\\",
    "user-1' --",
    ":name",
    "%(name)s",
    "$1",
    "{0}",
    "\u202euser",
    "\U0001f600" * 200,
]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_text_is_only_ever_text(store: Store, turn: Turn, text: str) -> None:
    await store.conversations.save(turn(0))
    odd = turn(
        1,
        user_id=text[:255],
        session_id=text[:255],
        room_name=text[:255],
        user_input=text,
        agent_response=text,
        context_used={text: {text: [text]}},
    )
    await store.conversations.save(odd)
    [found] = (await store.conversations.history(user_id=text[:255])).items
    assert found.to_dict() | {"updated_at": None} == odd.to_dict()
    assert len((await store.conversations.history(user_id="user-1")).items) == 1
    assert (await store.forget(text[:255])).conversations == 1
    assert len((await store.conversations.history(user_id="user-1")).items) == 1


@pytest.mark.parametrize(
    "key", ["a,b", "{a}", "a,b}{c", '"', "\\", "a.b", "$.a", "'", "a\nb", "", "\u2028"]
)
async def test_json_keys_are_only_ever_keys(store: Store, turn: Turn, key: str) -> None:
    odd = turn(context_used={key: {"b": 1, key: [key]}, "a": {"b": "secret"}})
    await store.conversations.save(odd)
    found = await store.conversations.get(odd.id)
    assert found is not None
    assert found.context_used == odd.context_used


@pytest.mark.parametrize("text", [*INJECTIONS, "& | ! ( )", "'", ":*", "<->", "a" * 5000])
async def test_words_of_a_search_are_only_ever_words(
    store: Store, turn: Turn, axis: Callable[..., list[float]], text: str
) -> None:
    await store.conversations.save(turn(embedding=axis(0)))
    found = await store.conversations.similar(axis(0), user_id="user-1", text=text)
    assert len(found) == 1


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_deep_nesting_is_refused_and_not_a_crash(turn: Turn) -> None:
    assert turn(context_used=nested(60)).context_used == nested(60)
    with pytest.raises(InvalidField, match="deeper than 64"):
        turn(context_used=nested(5000))


# jsonb keeps decimal numbers: a float above 2**53 comes back as the whole number it was written as.
NUMBERS = (
    st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", ["psycopg", "asyncpg", "sqlite", "memory"])
async def test_any_json_is_refused_at_once_or_kept(
    make_url: Callable[[str], str], turn: Turn, kind: str
) -> None:
    examples: list[dict[str, Any]] = []

    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.text(), JSON, max_size=4), st.text())
    def collect(context: dict[str, Any], words: str) -> None:
        examples.append({"context_used": context, "user_input": words})

    collect()
    kept = refused = 0
    async with Store(make_url(kind)) as store:
        for index, fields in enumerate(examples):
            try:
                odd = turn(index, **fields)
            except InvalidField:
                refused += 1
                continue
            await store.conversations.save(odd)
            found = await store.conversations.get(odd.id)
            assert found is not None
            assert (found.context_used, found.user_input) == (odd.context_used, odd.user_input)
            kept += 1
    assert kept
    assert refused
