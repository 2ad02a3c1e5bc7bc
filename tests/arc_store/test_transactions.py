"""Transactions and `once` are the same in every database and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from arc_bus.errors import Unsupported
from arc_bus.message import Message
from arc_bus.policy import Subscription
from arc_bus.reader import Reader
from arc_bus.transport import Delivery, Outgoing
from arc_bus.wire import JSON, JsonCodec
from arc_store import (
    Conflict,
    Conversation,
    InvalidField,
    RolledBack,
    Session,
    Store,
    StoreClosed,
    StoreError,
    TransactionEnded,
)

Turn = Callable[..., Conversation]


def message(
    id: str | None = "m-1", *, group: str | None = "workers", body: bytes = b"{}"
) -> Message:
    delivery = Delivery("agent.brain.request", body, {}, id=id)
    subscription = Subscription(pattern="agent.brain.request", group=group)
    return Message(delivery, subscription, Reader(bytes, {JSON: JsonCodec()}))


def outgoing(id: str, key: str | None = None) -> Outgoing:
    return Outgoing("agent.tts.request", b"{}", {"traceparent": "00-1-2-01"}, id, key)


async def test_a_transaction_commits_all_or_nothing(store: Store, turn: Turn) -> None:
    one, two = turn(1), turn(2)
    async with store.transaction() as transaction:
        await transaction.conversations.save(one)
        assert await transaction.conversations.get(one.id) is not None
        await transaction.sessions.start(Session(user_id="user-1", room_name="room"))
    assert await store.conversations.get(one.id) is not None
    with pytest.raises(ValueError, match="stop"):  # noqa: PT012 - the block raises
        async with store.transaction() as transaction:
            await transaction.conversations.save(two)
            await transaction.enqueue(outgoing("m-1"))
            raise ValueError("stop")
    assert await store.conversations.get(two.id) is None
    assert await store.outbox.depth() == (0, 0.0)


async def test_what_is_not_committed_is_not_seen(
    make_url: Callable[[str], str], turn: Turn
) -> None:
    for kind in ("psycopg", "asyncpg", "sqlite", "memory"):
        async with Store(make_url(kind)) as store:
            async with store.transaction() as transaction:
                await transaction.conversations.save(turn(1))
                assert (await store.conversations.history(user_id="user-1")).items == []
            assert len((await store.conversations.history(user_id="user-1")).items) == 1


async def test_a_transaction_that_went_on_after_a_refusal_says_so_at_its_end(
    store: Store, turn: Turn
) -> None:
    known = turn(1)
    await store.conversations.save(known)
    with pytest.raises(RolledBack):  # noqa: PT012 - the block raises
        async with store.transaction() as transaction:
            await transaction.conversations.save(turn(2))
            with pytest.raises(Conflict):
                await transaction.conversations.save(turn(3, id=known.id))
    assert len((await store.conversations.history(user_id="user-1")).items) == 1


async def test_an_ended_transaction_is_of_no_use(store: Store, turn: Turn) -> None:
    async with store.transaction() as transaction:
        pass
    with pytest.raises(TransactionEnded):
        await transaction.conversations.save(turn())


async def test_a_closed_store_says_how_to_open_it(make_url: Callable[[str], str]) -> None:
    for kind in ("psycopg", "sqlite", "memory"):
        store = Store(make_url(kind))
        with pytest.raises(StoreClosed, match="async with"):
            await store.conversations.history(user_id="user-1")
        async with store:
            await store.conversations.history(user_id="user-1")
        with pytest.raises(StoreClosed):
            async with store.transaction():
                pass


async def test_a_message_has_its_effect_once(store: Store, turn: Turn) -> None:
    effects = 0
    for _ in range(3):
        async with store.once(message()) as transaction:
            if transaction is None:
                continue
            effects += 1
            await transaction.conversations.save(turn(effects))
    assert effects == 1
    assert len((await store.conversations.history(user_id="user-1")).items) == 1


async def test_a_failed_effect_may_be_tried_again(store: Store, turn: Turn) -> None:
    with pytest.raises(ValueError, match="first"):  # noqa: PT012 - the block raises
        async with store.once(message()) as transaction:
            assert transaction is not None
            await transaction.conversations.save(turn(1))
            raise ValueError("first")
    async with store.once(message()) as transaction:
        assert transaction is not None


async def test_each_group_and_each_message_has_its_own_effect(store: Store) -> None:
    for told in (message(), message(group="others"), message(group=None), message("m-2")):
        async with store.once(told) as transaction:
            assert transaction is not None
    async with store.once(message(), consumer="by hand") as transaction:
        assert transaction is not None
    async with store.once(message(group=None)) as transaction:
        assert transaction is None


async def test_a_message_without_an_id_is_known_by_its_bytes(store: Store) -> None:
    async with store.once(message(None, body=b"one")) as transaction:
        assert transaction is not None
    async with store.once(message(None, body=b"two")) as transaction:
        assert transaction is not None
    async with store.once(message(None, body=b"one")) as transaction:
        assert transaction is None


@pytest.mark.parametrize("id", ["x" * 256, "a\x00b", " "])
async def test_an_id_that_cannot_be_kept_is_refused(store: Store, id: str) -> None:
    with pytest.raises(InvalidField, match="message_id"):
        async with store.once(message(id)):
            pass


async def test_a_duplicate_waits_for_the_first_and_then_is_one(
    make_url: Callable[[str], str],
) -> None:
    for kind in ("psycopg", "asyncpg", "sqlite", "memory"):
        async with Store(make_url(kind)) as store:
            for fails in (False, True):
                holding, release = asyncio.Event(), asyncio.Event()

                async def first(
                    store: Store, fails: bool, holding: asyncio.Event, release: asyncio.Event
                ) -> None:
                    async with store.once(message(str(fails))):
                        holding.set()
                        await release.wait()
                        if fails:
                            raise ValueError("first")

                async def second(store: Store, fails: bool) -> bool:
                    async with store.once(message(str(fails))) as transaction:
                        return transaction is None

                one = asyncio.create_task(first(store, fails, holding, release))
                await holding.wait()
                two = asyncio.create_task(second(store, fails))
                done, _ = await asyncio.wait({two}, timeout=0.1)
                assert not done
                release.set()
                assert await two is not fails
                await asyncio.wait({one})
                assert (one.exception() is not None) is fails


async def test_old_inbox_entries_and_dead_messages_are_swept(
    make_url: Callable[[str], str],
) -> None:
    for kind in ("psycopg", "asyncpg", "sqlite", "memory"):
        short = Store(make_url(kind), keep_inbox=timedelta(0), keep_dead=timedelta(0))
        async with short as store:
            async with store.once(message()) as transaction:
                assert transaction is not None
                await transaction.enqueue(outgoing("m-1"))
                await transaction.enqueue(outgoing("m-2"))
            async with store.outbox.claim(10) as claim:
                await claim.bury(claim.messages[0].number, "no")
            assert await store.sweep() == 2
            async with store.once(message()) as transaction:
                assert transaction is not None
            assert (await store.outbox.depth())[0] == 1
            assert await store.outbox.dead() == []


async def test_a_users_data_is_exported_whole_and_then_forgotten(
    store: Store, turn: Turn, axis: Callable[..., list[float]]
) -> None:
    session = Session(user_id="user-1", room_name="room")
    await store.sessions.start(session)
    await store.sessions.start(Session(user_id="user-2", room_name="room"))
    await store.conversations.save_many(
        [turn(index, embedding=axis(index)) for index in range(3)] + [turn(0, user_id="user-2")]
    )
    exported = [record async for record in store.export("user-1")]
    assert [record["table"] for record in exported] == ["sessions", *["conversations"] * 3]
    vectors = {record["turn_index"]: record["embedding"] for record in exported[1:]}
    assert vectors == {index: axis(index) for index in range(3)}
    forgotten = await store.forget("user-1")
    assert (forgotten.conversations, forgotten.sessions) == (3, 1)
    assert [record async for record in store.export("user-1")] == []
    assert len([record async for record in store.export("user-2")]) == 2
    await store.conversations.save(turn(0))


async def test_forgetting_and_telling_so_are_one_transaction(store: Store, turn: Turn) -> None:
    await store.conversations.save_many([turn(1), turn(2)])
    with pytest.raises(ValueError, match="stop"):  # noqa: PT012 - the block raises
        async with store.transaction() as transaction:
            assert (await transaction.forget("user-1")).conversations == 2
            assert (await transaction.conversations.history(user_id="user-1")).items == []
            raise ValueError("stop")
    assert len((await store.conversations.history(user_id="user-1")).items) == 2
    async with store.transaction() as transaction:
        await transaction.forget("user-1")
        await transaction.enqueue(outgoing("audit"))
    assert (await store.conversations.history(user_id="user-1")).items == []
    assert (await store.outbox.depth())[0] == 1


async def test_statements_of_ones_own_share_the_transaction(sql_store: Store, turn: Turn) -> None:
    values: dict[str, Any] = {"user_id": "u", "user_input": "a", "agent_response": "b"}
    with pytest.raises(ValueError, match="stop"):  # noqa: PT012 - the block raises
        async with sql_store.transaction() as transaction:
            await transaction.session.execute(insert(Conversation), {"id": turn().id, **values})
            await transaction.conversations.save(turn(1))
            raise ValueError("stop")
    async with sql_store.transaction() as transaction:
        transaction.session.add(Conversation(**values))
    assert len((await sql_store.conversations.history(user_id="u")).items) == 1


async def test_a_commit_that_would_be_a_silent_rollback_is_told(
    postgres_store: Store, turn: Turn
) -> None:
    with pytest.raises(StoreError, match="aborted"):  # noqa: PT012 - the block raises
        async with postgres_store.transaction() as transaction:
            await transaction.conversations.save(turn(1))
            with pytest.raises(DBAPIError, match="nowhere"):
                await transaction.session.execute(text("SELECT * FROM nowhere"))
    assert (await postgres_store.conversations.history(user_id="user-1")).items == []


async def test_a_store_in_memory_has_no_session(turn: Turn) -> None:
    async with Store("memory://") as store, store.transaction() as transaction:
        with pytest.raises(Unsupported, match="memory"):
            _ = transaction.session
