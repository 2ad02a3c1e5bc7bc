"""What `conversations` does is the same in every database and without one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from arc_store import Conflict, Conversation, InvalidCursor, InvalidField, Store

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
Turn = Callable[..., Conversation]
Axis = Callable[..., list[float]]


async def test_a_saved_turn_comes_back_whole(store: Store, turn: Turn, axis: Axis) -> None:
    full = turn(
        3,
        room_name="room",
        context_used={"tools_invoked": ["weather"], "nested": {"a,b": [1, 2.5, None, True]}},
        llm_model="large",
        llm_tokens_used=12,
        stt_model="ears",
        tts_model="mouth",
        stt_latency_ms=1,
        llm_latency_ms=2,
        tts_latency_ms=3,
        total_latency_ms=6,
        embedding=axis(0, 0.5),
        embedding_model="axes",
    )
    assert await store.conversations.save(full) is True
    found = await store.conversations.get(full.id, embedding=True)
    assert found is not None
    assert found.to_dict(embedding=True) | {"updated_at": None} == full.to_dict(embedding=True)
    assert found.updated_at.tzinfo is not None


async def test_a_vector_is_read_only_when_asked_for(store: Store, turn: Turn, axis: Axis) -> None:
    saved = turn(embedding=axis(0))
    await store.conversations.save(saved)
    plain = await store.conversations.get(saved.id)
    assert plain is not None
    assert plain.embedding is None
    assert "embedding" not in plain.to_dict()


async def test_an_unknown_id_is_none(store: Store) -> None:
    assert await store.conversations.get(uuid4()) is None


async def test_saving_the_same_again_changes_nothing_and_says_so(
    store: Store, turn: Turn, axis: Axis
) -> None:
    first = turn(embedding=axis(0), context_used={"a": 1})
    assert await store.conversations.save(first)
    before = await store.conversations.get(first.id)
    again = turn(embedding=axis(0), context_used={"a": 1})
    assert await store.conversations.save(again) is False
    after = await store.conversations.get(first.id)
    assert before is not None
    assert after is not None
    assert after.updated_at == before.updated_at
    assert await store.conversations.get(again.id) is None


async def test_a_change_is_told_and_keeps_id_and_creation(store: Store, turn: Turn) -> None:
    first = turn(llm_model="small")
    await store.conversations.save(first)
    changed = turn(llm_model="large", created_at=MOMENT + timedelta(days=1))
    assert await store.conversations.save(changed) is True
    page = await store.conversations.history(user_id="user-1")
    assert [(t.id, t.llm_model, t.created_at) for t in page.items] == [
        (first.id, "large", first.created_at)
    ]


async def test_what_a_later_save_leaves_out_is_kept(store: Store, turn: Turn, axis: Axis) -> None:
    first = turn(embedding=axis(0), embedding_model="axes", room_name="room")
    await store.conversations.save(first)
    assert await store.conversations.save(turn()) is False
    kept = await store.conversations.get(first.id, embedding=True)
    assert kept is not None
    assert kept.embedding == axis(0)
    assert (kept.embedding_model, kept.room_name) == ("axes", "room")


async def test_a_vector_may_be_added_later(store: Store, turn: Turn, axis: Axis) -> None:
    first = turn()
    await store.conversations.save(first)
    assert await store.conversations.save(turn(embedding=axis(4), embedding_model="axes")) is True
    found = await store.conversations.get(first.id, embedding=True)
    assert found is not None
    assert found.embedding == axis(4)


async def test_a_vector_of_other_words_does_not_outlive_them(
    store: Store, turn: Turn, axis: Axis
) -> None:
    first = turn(embedding=axis(0), embedding_model="axes")
    await store.conversations.save(first)
    assert await store.conversations.save(turn(user_input="something else")) is True
    found = await store.conversations.get(first.id, embedding=True)
    assert found is not None
    assert (found.embedding, found.embedding_model) == (None, None)


async def test_the_session_is_part_of_the_key_and_none_equals_none(
    store: Store, turn: Turn
) -> None:
    assert await store.conversations.save(turn(session_id="one"))
    assert await store.conversations.save(turn(session_id="two"))
    assert await store.conversations.save(turn(session_id=None))
    assert await store.conversations.save(turn(session_id=None)) is False
    assert len((await store.conversations.history(user_id="user-1")).items) == 3


async def test_another_turn_with_a_known_id_is_a_conflict(store: Store, turn: Turn) -> None:
    first = turn()
    await store.conversations.save(first)
    with pytest.raises(Conflict):
        await store.conversations.save(turn(7, id=first.id))
    assert len((await store.conversations.history(user_id="user-1")).items) == 1


async def test_many_are_saved_at_once_and_counted(store: Store, turn: Turn, axis: Axis) -> None:
    turns = [turn(index, embedding=axis(index)) for index in range(70)]
    assert await store.conversations.save_many(turns) == 70
    assert await store.conversations.save_many(turns) == 0
    turns[5].llm_model = "large"
    assert await store.conversations.save_many(turns) == 1
    assert await store.conversations.save_many([]) == 0


async def test_equal_keys_in_one_batch_become_one_turn(
    store: Store, turn: Turn, axis: Axis
) -> None:
    first, second = turn(embedding=axis(0)), turn(llm_model="large")
    assert await store.conversations.save_many([first, second]) == 1
    [kept] = (await store.conversations.history(user_id="user-1")).items
    assert (kept.id, kept.llm_model) == (first.id, "large")
    whole = await store.conversations.get(kept.id, embedding=True)
    assert whole is not None
    assert whole.embedding == axis(0)


async def test_a_batch_is_saved_whole_or_not_at_all(store: Store, turn: Turn) -> None:
    known = turn()
    await store.conversations.save(known)
    with pytest.raises(Conflict):
        await store.conversations.save_many([turn(1), turn(2, id=known.id), turn(3)])
    assert len((await store.conversations.history(user_id="user-1")).items) == 1


async def test_history_pages_are_newest_first_and_never_shift(store: Store, turn: Turn) -> None:
    await store.conversations.save_many([turn(index) for index in range(7)])
    first = await store.conversations.history(user_id="user-1", limit=3)
    assert [t.turn_index for t in first.items] == [6, 5, 4]
    await store.conversations.save(turn(8))
    second = await store.conversations.history(user_id="user-1", limit=3, after=first.next)
    assert [t.turn_index for t in second.items] == [3, 2, 1]
    last = await store.conversations.history(user_id="user-1", limit=3, after=second.next)
    assert [t.turn_index for t in last.items] == [0]
    assert last.next is None


async def test_turns_of_one_moment_are_paged_without_loss(store: Store, turn: Turn) -> None:
    await store.conversations.save_many([turn(index, created_at=MOMENT) for index in range(5)])
    seen: list[UUID] = []
    cursor: str | None = None
    while True:
        page = await store.conversations.history(session_id="session-1", limit=2, after=cursor)
        seen += [t.id for t in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 5


async def test_history_filters_by_user_agent_and_session(store: Store, turn: Turn) -> None:
    await store.conversations.save_many(
        [
            turn(0),
            turn(0, user_id="user-2"),
            turn(0, agent_id="other-agent"),
            turn(0, session_id="session-2"),
        ]
    )
    page = await store.conversations.history(
        user_id="user-1", agent_id="arc-scarlett-voice", session_id="session-1"
    )
    assert len(page.items) == 1
    assert len((await store.conversations.history(agent_id="other-agent")).items) == 1
    with pytest.raises(InvalidField, match="never of all"):
        await store.conversations.history()


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "MjAyNi0wMS0wMXwx", "é", "' OR 1=1 --"])
async def test_a_made_up_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await store.conversations.history(user_id="user-1", after=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_out_of_bounds_is_refused(store: Store, limit: int) -> None:
    with pytest.raises(InvalidField, match="limit"):
        await store.conversations.history(user_id="user-1", limit=limit)
