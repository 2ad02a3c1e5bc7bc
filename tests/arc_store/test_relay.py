"""The relay sends what was committed, in the order of each key, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from arc_bus.errors import ConnectionLost, PayloadTooLarge, PublishUnconfirmed
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Retry
from arc_bus.transport import Outgoing
from arc_store import InvalidField, RelayPolicy, Store
from arc_store.relay import Relay

QUICK = RelayPolicy(batch=50, timeout=0.5, poll=0.05, retry=Retry(attempts=3, first=0.0, jitter=0))
Forward = Callable[[Outgoing], Awaitable[None]]


def outgoing(number: int, key: str | None = None) -> Outgoing:
    headers = {"traceparent": f"00-{number:032x}-1-01", "x": "ü"}
    return Outgoing("agent.tts.request", f"body {number}".encode(), headers, f"m-{number}", key)


async def fill(store: Store, messages: Sequence[Outgoing]) -> None:
    async with store.transaction() as transaction:
        for message in messages:
            await transaction.enqueue(message)


class Broker:
    """Takes messages, and fails when told to."""

    def __init__(self) -> None:
        self.got: list[Outgoing] = []
        self.failures: dict[str, list[Exception]] = {}
        self.notices: list[Notice] = []

    async def forward(self, outgoing: Outgoing) -> None:
        await asyncio.sleep(0)
        failures = self.failures.get(outgoing.id)
        if failures:
            raise failures.pop(0)
        self.got.append(outgoing)

    def relay(self, store: Store, policy: RelayPolicy = QUICK) -> Relay:
        return Relay(store.outbox, self.forward, policy, self.notices.append)

    @property
    def ids(self) -> list[str]:
        return [outgoing.id for outgoing in self.got]


async def drain(relay: Relay) -> None:
    while await relay.relay_once():
        pass


async def test_a_message_is_sent_as_it_was_written(store: Store) -> None:
    broker = Broker()
    await fill(store, [outgoing(1, "user-1"), outgoing(2)])
    await drain(broker.relay(store))
    assert sorted(broker.got, key=lambda o: o.id) == [outgoing(1, "user-1"), outgoing(2)]
    assert await store.outbox.depth() == (0, 0.0)


async def test_each_key_keeps_its_order(store: Store) -> None:
    broker = Broker()
    messages = [outgoing(number, f"key-{number % 7}") for number in range(140)]
    await fill(store, messages)
    await drain(broker.relay(store))
    assert sorted(broker.ids) == sorted(message.id for message in messages)
    for key in range(7):
        sent = [o.id for o in broker.got if o.key == f"key-{key}"]
        assert sent == [m.id for m in messages if m.key == f"key-{key}"]


async def test_a_failed_message_holds_back_its_key_alone(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [PublishUnconfirmed("no answer")]
    slow = RelayPolicy(poll=0.05, retry=Retry(attempts=3, first=60.0))
    await fill(store, [outgoing(1, "a"), outgoing(2, "a"), outgoing(3, "b"), outgoing(4)])
    await drain(broker.relay(store, slow))
    assert sorted(broker.ids) == ["m-3", "m-4"]
    assert (await store.outbox.depth())[0] == 2


async def test_a_message_that_never_succeeds_is_dead_after_its_attempts(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [ValueError("no\x00pe")] * 3
    await fill(store, [outgoing(1, "a"), outgoing(2, "a")])
    await drain(broker.relay(store))
    assert broker.ids == ["m-2"]
    [dead] = await store.outbox.dead()
    assert (dead.outgoing, dead.attempts, dead.error) == (outgoing(1, "a"), 3, "ValueError: nope")
    assert dead.dead_at is not None
    [notice] = broker.notices
    assert (notice.kind, notice.count) == (NoticeKind.DEAD_LETTERED, 1)
    assert await store.outbox.revive([dead.number]) == 1
    assert await store.outbox.revive([dead.number]) == 0
    await drain(broker.relay(store))
    assert broker.ids == ["m-2", "m-1"]


async def test_a_hopeless_message_is_dead_at_once(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [PayloadTooLarge("2 MB")]
    await fill(store, [outgoing(1)])
    await drain(broker.relay(store))
    [dead] = await store.outbox.dead()
    assert dead.attempts == 1


async def relayed(relay: Relay, store: Store) -> None:
    """Run the relay until nothing waits."""
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(30):
        while (await store.outbox.depth())[0]:  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.01)
    await relay.stop()
    await running


async def test_while_the_broker_is_away_nothing_counts_as_an_attempt(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [ConnectionLost("away")] * 5
    await fill(store, [outgoing(1, "a"), outgoing(2, "a")])
    await relayed(broker.relay(store), store)
    assert broker.failures == {"m-1": []}
    assert broker.ids == ["m-1", "m-2"]
    assert await store.outbox.dead() == []


async def test_a_broker_that_is_away_does_not_hold_back_the_others(store: Store) -> None:
    got: list[str] = []

    async def forward(outgoing: Outgoing) -> None:
        if outgoing.destination == "away":
            raise ConnectionLost("away")
        got.append(outgoing.id)

    messages = [Outgoing("away", b"", {}, f"a-{number}", f"{number}") for number in range(30)]
    messages += [Outgoing("there", b"", {}, f"t-{number}", f"{number}") for number in range(30)]
    await fill(store, messages)
    relay = Relay(store.outbox, forward, RelayPolicy(batch=10, poll=0.01), lambda _: None)
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(30):
        while len(got) < 30:  # noqa: ASYNC110 - polled, because it is what must not stall
            await asyncio.sleep(0.01)
    await relay.stop()
    await running
    assert sorted(got) == sorted(f"t-{number}" for number in range(30))
    assert (await store.outbox.depth())[0] == 30


async def test_a_broker_that_is_back_is_tried_at_once(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [ConnectionLost("away")] * 2
    await fill(store, [outgoing(1)])
    relay = broker.relay(store)
    assert await relay.relay_once() == 0
    assert await relay.relay_once() == 0
    assert len(broker.failures["m-1"]) == 1
    relay.try_again()
    assert await relay.relay_once() == 0
    relay.try_again()
    assert await relay.relay_once() == 1


async def test_a_broker_that_does_not_answer_uses_up_no_attempts(store: Store) -> None:
    got: list[str] = []
    tries = 0

    async def forward(outgoing: Outgoing) -> None:
        nonlocal tries
        tries += 1
        if tries <= 6:  # in turn: hangs, and says that no answer came
            await asyncio.Event().wait() if tries % 2 else None
            raise PublishUnconfirmed("no answer")
        got.append(outgoing.id)

    policy = RelayPolicy(timeout=0.02, poll=0.01, retry=Retry(attempts=2, first=0.0, jitter=0))
    await fill(store, [outgoing(1, "a"), outgoing(2, "a")])
    await relayed(Relay(store.outbox, forward, policy, lambda _: None), store)
    assert got == ["m-1", "m-2"]
    assert await store.outbox.dead() == []


async def test_a_message_that_alone_gets_no_answer_is_dead_after_its_attempts(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [TimeoutError()] * 3
    await fill(store, [outgoing(1)])
    for number in (2, 3, 4):  # something else gets through each time
        await fill(store, [outgoing(number)])
        await broker.relay(store).relay_once()
    assert broker.ids == ["m-2", "m-3", "m-4"]
    [dead] = await store.outbox.dead()
    assert (dead.outgoing.id, dead.attempts) == ("m-1", 3)


async def test_an_error_whose_text_no_database_keeps_is_an_attempt(store: Store) -> None:
    broker = Broker()
    broker.failures["m-1"] = [ValueError("half \ud800 and \x00")] * 3
    await fill(store, [outgoing(1)])
    await drain(broker.relay(store))
    [dead] = await store.outbox.dead()
    assert dead.error == "ValueError: half \\ud800 and "


async def test_several_relays_send_each_message_once_and_each_key_in_order(store: Store) -> None:
    broker = Broker()
    messages = [outgoing(number, f"key-{number % 10}") for number in range(200)]
    await fill(store, messages)
    policy = RelayPolicy(batch=5, poll=0.01)
    relays = [broker.relay(store, policy) for _ in range(3)]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    async with asyncio.timeout(30):
        while (await store.outbox.depth())[0]:  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.01)
    for relay in relays:
        await relay.stop()
    await asyncio.gather(*running)
    assert sorted(broker.ids) == sorted(message.id for message in messages)
    for key in range(10):
        sent = [o.id for o in broker.got if o.key == f"key-{key}"]
        assert sent == [m.id for m in messages if m.key == f"key-{key}"]


async def test_transactions_that_commit_in_reverse_order_are_both_relayed(
    postgres_store: Store,
) -> None:
    broker = Broker()
    relay = broker.relay(postgres_store)
    async with postgres_store.transaction() as first:
        await first.enqueue(outgoing(1, "a"))
        async with postgres_store.transaction() as second:
            await second.enqueue(outgoing(2, "b"))
        await drain(relay)
        assert broker.ids == ["m-2"]
    await drain(relay)
    assert broker.ids == ["m-2", "m-1"]


async def test_depth_tells_how_many_wait_and_how_long(store: Store) -> None:
    await fill(store, [outgoing(1), outgoing(2)])
    await asyncio.sleep(0.01)
    count, age = await store.outbox.depth()
    assert count == 2
    assert 0.0 < age < 60.0


async def test_another_services_messages_are_left_alone(store: Store) -> None:
    broker = Broker()
    store.outbox.service = "one"
    await fill(store, [outgoing(1)])
    store.outbox.service = "two"
    await drain(broker.relay(store))
    assert broker.ids == []
    store.outbox.service = "one"
    await drain(broker.relay(store))
    assert broker.ids == ["m-1"]


@pytest.mark.parametrize(
    "bad",
    [
        Outgoing("a\x00b", b"", {}, "m-1"),
        Outgoing("a", b"", {"x": "\x00"}, "m-1"),
        Outgoing("a", b"", {}, "m\x00"),
        Outgoing("a", b"", {}, "m-1", "\ud800"),
    ],
)
async def test_a_message_that_cannot_be_kept_is_refused(store: Store, bad: Outgoing) -> None:
    with pytest.raises(InvalidField):
        await fill(store, [bad])


async def test_any_bytes_survive_the_outbox(store: Store) -> None:
    broker = Broker()
    body = bytes(range(256))
    await fill(store, [Outgoing("a", body, {}, "m-1")])
    await drain(broker.relay(store))
    assert broker.got[0].body == body
