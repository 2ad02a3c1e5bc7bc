"""One subscription at work: order, flow, leases, dedup, and a stop that loses nothing."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from arc_bus import Breaker, Bus, Dedup, Message, NoticeKind, Overflow, Retry, StopReport
from arc_bus.consumer import PARKED
from arc_bus.errors import NotSettled
from arc_bus.transport import Delivery, Endpoint, Outgoing
from arc_inmemory.transport import MemoryTransport

pytestmark = pytest.mark.virtual_time

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Step(msgspec.Struct):
    key: str
    number: int


class Order(msgspec.Struct):
    number: int


# -- order


async def test_order_by_keeps_200_keys_in_order_over_random_failures_and_32_workers(
    memory_bus: Make, until: Until
) -> None:
    bus, dice = memory_bus(), random.Random(4)
    done: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()
    handled = 0

    async def handler(step: Step) -> None:
        nonlocal handled
        running[step.key] += 1
        assert running[step.key] == 1, "two messages of one key ran at once"
        try:
            await asyncio.sleep(dice.random() * 0.01)
            if dice.random() < 0.2:
                raise RuntimeError("at random")
        finally:
            running[step.key] -= 1
        done[step.key].append(step.number)
        handled += 1

    bus.subscribe(
        "a.b", handler, group="g", concurrency=32, order_by="key",
        retry=Retry(attempts=1000, first=0.001, max=0.01),
    )  # fmt: skip
    async with bus:
        for number in range(10):
            for key in range(200):
                await bus.publish("a.b", Step(f"k{key}", number))
        await until(lambda: handled == 2000, 600)
    assert len(done) == 200
    assert all(numbers == list(range(10)) for numbers in done.values())


async def test_a_failing_key_holds_its_successors_back_until_it_is_dead_and_no_other_key(
    memory_bus: Make, until: Until
) -> None:
    bus, log = memory_bus(), list[tuple[float, str, int]]()

    async def handler(step: Step) -> None:
        log.append((asyncio.get_running_loop().time(), step.key, step.number))
        if step.key == "poison" and step.number == 0:
            raise RuntimeError("always")

    bus.subscribe("a.b", handler, group="g", concurrency=1, order_by="key", retry=Retry(jitter=0))
    async with bus:
        for number in range(3):
            for key in ("poison", "sound"):
                await bus.publish("a.b", Step(key, number))
        await until(lambda: len(log) == 10)
    assert [number for _, key, number in log if key == "poison"] == [0, 0, 0, 0, 0, 1, 2]
    assert all(at == 0 for at, key, _ in log if key == "sound")
    assert log[-1][0] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("order_by", ["key", lambda step: step.key])
async def test_a_message_without_its_key_field_is_dealt_with_beside_the_lanes(
    memory_bus: Make, seen: Any, until: Until, order_by: Any
) -> None:
    bus, got = memory_bus(), list[int]()

    async def handler(step: Step) -> None:
        got.append(step.number)

    bus.subscribe("a.b", handler, group="g", order_by=order_by)
    async with bus:
        await bus.publish("a.b", {"other": 1})
        await bus.publish("a.b", Step("k", 1))
        await until(lambda: got and seen.of(NoticeKind.DEAD_LETTERED))
    assert got == [1]


async def test_a_key_that_cannot_be_hashed_is_no_key(memory_bus: Make, until: Until) -> None:
    bus, got = memory_bus(), list[object]()

    async def handler(said: dict[str, object]) -> None:
        got.append(said["key"])

    bus.subscribe("a.b", handler, group="g", order_by="key")
    async with bus:
        await bus.publish("a.b", {"key": ["a", "list"]})
        await until(lambda: got)
    assert got == [["a", "list"]]


async def test_an_order_that_cannot_be_kept_is_told_once(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    bus, got = memory_bus(), list[int]()

    async def handler(step: Step) -> None:
        got.append(step.number)

    bus.subscribe("a.b", handler, group="g", order_by=lambda step: step["key"])
    async with bus:
        for number in range(10):
            await bus.publish("a.b", Step("k", number))
        await until(lambda: len(got) == 10)
    [notice] = seen.of(NoticeKind.ERROR)
    assert "order_by" in notice.detail
    assert isinstance(notice.error, TypeError)


# -- flow


async def test_no_more_is_fetched_than_the_bound_and_all_arrives(
    memory_bus: Make, until: Until
) -> None:
    bus, most, handled = memory_bus(), 0, 0

    async def slow(_order: Order) -> None:
        nonlocal most, handled
        most = max(most, handle.in_flight)
        await asyncio.sleep(1)
        handled += 1

    handle = bus.subscribe("a.b", slow, group="g", concurrency=4, prefetch=10)
    async with bus:
        for number in range(100):
            await bus.publish("a.b", Order(number))
        await until(lambda: handled == 100, 60)
    assert most == 10


async def test_a_quarter_of_the_bound_is_fetched_again_while_slow_handlers_hold_the_rest(
    memory_bus: Make, until: Until
) -> None:
    bus, gate = memory_bus(), asyncio.Event()
    begun: list[int] = []

    async def handler(order: Order) -> None:
        begun.append(order.number)
        if order.number < 6:
            await gate.wait()

    handle = bus.subscribe("orders.placed", handler, concurrency=8, prefetch=8)
    async with bus:
        for number in range(20):
            await bus.publish("orders.placed", Order(number))
        await until(lambda: len(begun) == 20)  # past the six that wait, two at a time
        assert handle.in_flight == 6
        gate.set()
        await until(lambda: not handle.in_flight)
    assert begun == list(range(20))


@pytest.mark.parametrize("retried", [False, True])
async def test_a_slow_keys_backlog_beyond_the_prefetch_delays_no_other_key(
    memory_bus: Make, until: Until, retried: bool
) -> None:
    bus, loop = memory_bus(), asyncio.get_running_loop()
    done: dict[str, list[tuple[float, int]]] = defaultdict(list)

    async def handler(step: Step, message: Message) -> None:
        if step.key == "slow" and retried and message.attempt == 1:
            raise RuntimeError("waits 100 s for its next attempt")
        await asyncio.sleep(100 if step.key == "slow" and not retried else 1)
        done[step.key].append((loop.time(), step.number))

    handle = bus.subscribe(
        "a.b", handler, group="g", concurrency=4, prefetch=8, order_by="key",
        retry=Retry(first=9, max=9, jitter=0),
    )  # fmt: skip
    async with bus:
        for number in range(40):
            await bus.publish("a.b", Step("slow", number))
        for number in range(30):
            await bus.publish("a.b", Step(f"quick {number}", number))
        await until(lambda: sum(key != "slow" for key in done) == 30, 60)
        assert len(done["slow"]) <= 2
        assert handle.in_flight > 8
        await until(lambda: len(done["slow"]) == 40, 5000)
    assert [number for _, number in done["slow"]] == list(range(40))


async def test_what_waits_behind_a_slow_key_has_a_bound_of_its_own_and_the_byte_budget(
    memory_bus: Make, until: Until
) -> None:
    bus, most, handled = memory_bus(), [0, 0], 0

    async def slow(said: dict[str, object]) -> None:
        nonlocal handled
        for place, handle in enumerate(handles):
            most[place] = max(most[place], handle.in_flight)
        await asyncio.sleep(1)
        handled += 1

    handles = [
        bus.subscribe(
            "a.b", slow, group=group, concurrency=2, prefetch=4, order_by="key",
            prefetch_bytes=budget,
        )
        for group, budget in (("by-number", 1 << 20), ("by-bytes", 5_000))
    ]  # fmt: skip
    async with bus:
        for _ in range(100):
            await bus.publish("a.b", {"key": "one", "text": "x" * 300})
        await until(lambda: handled == 200, 300)
    assert most[0] == 4 + PARKED * 4
    assert 4 < most[1] <= 5_000 / 300


async def test_the_byte_budget_stops_fetching_until_bodies_have_gone(
    memory_bus: Make, until: Until
) -> None:
    bus, most, handled = memory_bus(), 0, 0

    async def slow(_body: bytes) -> None:
        nonlocal most, handled
        most = max(most, handle.in_flight)
        await asyncio.sleep(1)
        handled += 1

    handle = bus.subscribe("a.b", slow, group="g", concurrency=1, prefetch=8, prefetch_bytes=3_000)
    async with bus:
        for _ in range(40):
            await bus.publish("a.b", b"x" * 1000)
        await until(lambda: handled == 10, 60)
        most = 0
        await until(lambda: handled == 40, 60)
    assert most <= 4, "eight were fetched at first; afterwards at most the budget and one chunk"


@pytest.mark.parametrize("prefetch", [1, 2, 64])
async def test_a_paused_subscription_goes_on_whatever_it_held(
    memory_bus: Make, until: Until, prefetch: int
) -> None:
    bus, handled = memory_bus(), list[float]()

    async def handler(_order: Order) -> None:
        handled.append(asyncio.get_running_loop().time())
        if len(handled) == 2:
            handle.pause(50)

    handle = bus.subscribe("a.b", handler, group="g", prefetch=prefetch, concurrency=1)
    async with bus:
        for number in range(6):
            await bus.publish("a.b", Order(number))
        await until(lambda: len(handled) == 6, 100)
        handle.pause()
        await bus.publish("a.b", Order(6))
        await asyncio.sleep(300)
        assert len(handled) == 6
        handle.resume()
        await until(lambda: len(handled) == 7)
    assert [at for at in handled if 1 < at < 50] == []


async def test_the_rate_bounds_handler_starts(memory_bus: Make, until: Until) -> None:
    bus, starts = memory_bus(), list[float]()

    async def handler(_order: Order) -> None:
        starts.append(asyncio.get_running_loop().time())

    bus.subscribe("a.b", handler, group="g", rate=10)
    async with bus:
        for number in range(101):
            await bus.publish("a.b", Order(number))
        await until(lambda: len(starts) == 101, 60)
    assert starts[-1] - starts[0] == pytest.approx(10, rel=0.1)


async def test_a_breaker_does_not_end_a_pause_that_was_asked_for(memory_bus: Make) -> None:
    bus, starts = memory_bus(), list[int]()

    async def handler(order: Order) -> None:
        starts.append(order.number)
        if order.number == 0:
            await asyncio.sleep(5)
            raise RuntimeError("no")

    handle = bus.subscribe(
        "a.b", handler, group="g", retry=Retry(attempts=1), breaker=Breaker(failures=1, pause=10)
    )
    async with bus:
        await bus.publish("a.b", Order(0))
        await asyncio.sleep(1)
        handle.pause()
        await bus.publish("a.b", Order(1))
        await asyncio.sleep(100)
        assert starts == [0]
        handle.pause(50)
        await asyncio.sleep(49)
        assert starts == [0]
        await asyncio.sleep(2)
        assert starts == [0, 1]


async def test_no_retry_starts_in_a_pause(memory_bus: Make) -> None:
    bus, starts = memory_bus(), list[int]()

    async def handler(order: Order) -> None:
        starts.append(order.number)
        if starts.count(order.number) == 1:
            raise RuntimeError("no")

    handle = bus.subscribe("a.b", handler, group="g", retry=Retry(first=1))
    async with bus:
        for number in range(5):
            await bus.publish("a.b", Order(number))
        await asyncio.sleep(0.5)
        handle.pause()
        await asyncio.sleep(100)
        assert len(starts) == 5
        handle.resume()
        await asyncio.sleep(1)
        assert len(starts) == 10


async def test_a_stop_returns_what_a_pause_kept_from_another_try(memory_bus: Make) -> None:
    bus, starts = memory_bus(), list[int]()

    async def handler(order: Order) -> None:
        starts.append(order.number)
        raise RuntimeError("no")

    handle = bus.subscribe("a.b", handler, group="g", retry=Retry(first=1))
    async with bus:
        await bus.publish("a.b", Order(1))
        await asyncio.sleep(0.5)
        handle.pause()
        await asyncio.sleep(100)
        assert await bus.close() == StopReport(returned=1)
    assert starts == [1]


async def test_the_rate_bounds_retries_too(memory_bus: Make, until: Until) -> None:
    bus, starts = memory_bus(), list[float]()

    async def handler(_order: Order) -> None:
        starts.append(asyncio.get_running_loop().time())
        raise RuntimeError("no")

    bus.subscribe("a.b", handler, group="g", rate=1, retry=Retry(attempts=3, first=0.01))
    async with bus:
        for number in range(10):
            await bus.publish("a.b", Order(number))
        await until(lambda: len(starts) == 30, 60)
    assert starts[-1] - starts[0] == pytest.approx(29, rel=0.1)


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [(Overflow.DROP_OLDEST, [0, *range(991, 1000)]), (Overflow.DROP_NEWEST, list(range(10)))],
)
async def test_what_an_at_most_once_route_brings_beyond_the_bound_is_dropped_and_counted(
    faulty_bus: Make, seen: Any, until: Until, overflow: Overflow, kept: list[int]
) -> None:
    bus, started, go = faulty_bus("at-most-once://"), list[int](), asyncio.Event()

    async def handler(order: Order) -> None:
        started.append(order.number)
        await go.wait()

    handle = bus.subscribe("a.b", handler, concurrency=1, prefetch=10, overflow=overflow)
    async with bus:
        for number in range(1000):
            await bus.publish("a.b", Order(number))
            await asyncio.sleep(0)
        await until(lambda: seen.count(NoticeKind.DROPPED) == 990)
        assert handle.in_flight == 10
        go.set()
        await until(lambda: len(started) == 10)
    assert started == kept
    assert {notice.pattern for notice in seen.of(NoticeKind.DROPPED)} == {"a.b"}


async def test_a_byte_budget_bounds_an_at_most_once_route_too(
    faulty_bus: Make, seen: Any, until: Until
) -> None:
    bus, go = faulty_bus("at-most-once://"), asyncio.Event()

    async def handler(_body: bytes) -> None:
        await go.wait()

    handle = bus.subscribe("a.b", handler, concurrency=1, prefetch_bytes=10_000)
    async with bus:
        for _ in range(100):
            await bus.publish("a.b", b"x" * 1000)
            await asyncio.sleep(0)
        await until(lambda: seen.count(NoticeKind.DROPPED) == 90)
        assert handle.in_flight == 10
        go.set()


# -- leases


async def test_a_handler_of_90_seconds_runs_once_on_a_deadline_of_5(
    memory_bus: Make, until: Until
) -> None:
    bus, runs = memory_bus("memory://?ack_deadline=5"), list[float]()

    async def slow(_order: Order) -> None:
        runs.append(asyncio.get_running_loop().time())
        await asyncio.sleep(90)

    handle = bus.subscribe("a.b", slow, group="g")
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: runs and not handle.in_flight, 200)
        await asyncio.sleep(200)
    assert len(runs) == 1


async def test_what_waits_behind_a_slow_handler_keeps_its_lease_too(
    memory_bus: Make, until: Until
) -> None:
    bus, attempts = memory_bus("memory://?ack_deadline=5"), list[tuple[int, int]]()

    async def slow(order: Order, message: Message) -> None:
        attempts.append((order.number, message.delivery.attempt))
        await asyncio.sleep(20)

    bus.subscribe("a.b", slow, group="g", concurrency=1, prefetch=5)
    async with bus:
        for number in range(5):
            await bus.publish("a.b", Order(number))
        await until(lambda: len(attempts) == 5, 200)
        await asyncio.sleep(30)
    assert attempts == [(number, 1) for number in range(5)]


async def test_a_lease_ends_after_its_maximum_and_the_message_comes_again(
    memory_bus: Make, until: Until
) -> None:
    bus, runs = memory_bus("memory://?ack_deadline=5"), list[tuple[float, bool]]()

    async def hangs(_order: Order, message: Message) -> None:
        runs.append((asyncio.get_running_loop().time(), message.redelivered))
        if len(runs) == 1:
            await asyncio.sleep(3600)

    bus.subscribe("a.b", hangs, group="g", lease=30)
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: len(runs) == 2, 60)
        await bus.close(grace=0)
    assert [redelivered for _, redelivered in runs] == [False, True]
    assert 30 <= runs[1][0] <= 36


async def test_one_message_whose_lease_cannot_be_extended_costs_no_neighbour_its_own(
    faulty_bus: Make, faults: Any, seen: Any, until: Until
) -> None:
    bus, attempts = faulty_bus("faulty://?ack_deadline=6"), list[str]()

    def fail(delivery: Delivery) -> None:
        if delivery.id == "m-0":
            raise NotSettled("its lease had ended")

    async def slow(_order: Order, message: Message) -> None:
        attempts.append(message.id)
        await asyncio.sleep(60)

    bus.subscribe("a.b", slow, group="g")
    async with bus:
        faults.transport.on_extend = fail
        for number in range(5):
            await bus.publish("a.b", Order(number), message_id=f"m-{number}")
        await asyncio.sleep(50)
        await bus.close(grace=0)
    assert Counter(attempts)["m-0"] > 1
    assert all(Counter(attempts)[f"m-{number}"] == 1 for number in range(1, 5))
    assert "lease not extended" in {notice.detail for notice in seen.of(NoticeKind.ERROR)}


# -- dedup


async def test_an_id_is_handled_once_within_the_window(memory_bus: Make, until: Until) -> None:
    bus, handled = memory_bus("memory://?dedup_window=0.001"), list[str]()

    async def handler(_order: Order, message: Message) -> None:
        handled.append(message.id)

    handle = bus.subscribe("a.b", handler, group="g", dedup=Dedup(window=60))
    async with bus:
        for at in (0, 1, 30, 61.5):
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            await bus.publish("a.b", Order(1), message_id="m-1")
            await bus.publish("a.b", Order(2), message_id=f"other-{at}")
        await until(lambda: not handle.in_flight)
    assert handled.count("m-1") == 2
    assert len(handled) == 6


async def test_a_failed_attempt_releases_its_id_and_a_duplicate_meanwhile_waits(
    memory_bus: Make, until: Until
) -> None:
    bus, log = memory_bus("memory://?dedup_window=0.001"), list[str]()

    async def handler(order: Order) -> None:
        log.append(f"begin {order.number}")
        await asyncio.sleep(10)
        if order.number == 1:
            log.append("fail")
            raise RuntimeError("the first one fails")
        log.append("done")

    bus.subscribe("a.b", handler, group="g", dedup=Dedup(), retry=Retry(attempts=2, first=100))
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(1)
        await bus.publish("a.b", Order(2), message_id="m-1")
        await until(lambda: "done" in log)
        assert log == ["begin 1", "fail", "begin 2", "done"]
        await asyncio.sleep(500)
    assert log == ["begin 1", "fail", "begin 2", "done"], "the first one's second try was skipped"


class Elsewhere:
    """A store of handled ids that two services share, and that can be away."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], float] = {}
        self.away = False

    async def handled(self, subscription: str, id: str) -> bool:
        await asyncio.sleep(0.01)
        if self.away:
            raise ConnectionError("the store is away")
        return (subscription, id) in self.kept

    async def remember(self, subscription: str, id: str, window: float) -> None:
        await asyncio.sleep(0.01)
        self.kept[subscription, id] = window


async def test_a_store_of_ones_own_remembers_for_every_process_of_the_group(
    memory_bus: Make, until: Until
) -> None:
    store, handled = Elsewhere(), list[str]()

    async def handler(order: Order, message: Message) -> None:
        handled.append(message.id)
        if order.number < 0:
            raise RuntimeError("failed, so not handled")

    async def service(*orders: tuple[str, int], group: str = "g") -> None:
        """One process's life: it gets these orders, and nothing of what another got."""
        bus = memory_bus()
        dedup = Dedup(window=60, store=store)
        handle = bus.subscribe("a.b", handler, group=group, dedup=dedup, retry=Retry(attempts=1))
        async with bus:
            for id, number in orders:
                await bus.publish("a.b", Order(number), message_id=id)
            await until(lambda: not handle.in_flight)

    await service(("m-1", 1), ("m-2", -2))
    assert handled == ["m-1", "m-2"]
    assert store.kept == {("g a.b", "m-1"): 60}
    await service(("m-1", 1), ("m-2", 2))
    assert handled == ["m-1", "m-2", "m-2"], "what failed is not remembered, what was handled is"
    await service(("m-1", 1), group="h")
    assert handled[-1] == "m-1", "another group has handled nothing"


async def test_a_store_that_is_away_is_a_failed_attempt(memory_bus: Make, until: Until) -> None:
    bus, store, handled = memory_bus(), Elsewhere(), list[int]()

    async def handler(_order: Order, message: Message) -> None:
        handled.append(message.attempt)

    bus.subscribe("a.b", handler, group="g", dedup=Dedup(store=store))
    async with bus:
        store.away = True
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(0.5)
        assert handled == []
        store.away = False
        await until(lambda: handled)
    assert handled[0] > 1


async def test_at_most_so_many_ids_are_remembered(memory_bus: Make, until: Until) -> None:
    bus, handled = memory_bus("memory://?dedup_window=0.001"), list[str]()

    async def handler(_order: Order, message: Message) -> None:
        handled.append(message.id)

    handle = bus.subscribe("a.b", handler, group="g", concurrency=1, dedup=Dedup(size=2))
    async with bus:
        for id in ("a", "b", "a", "c", "a"):
            await bus.publish("a.b", Order(1), message_id=id)
            await asyncio.sleep(1)
        await until(lambda: not handle.in_flight)
    assert handled == ["a", "b", "c", "a"]


async def test_a_message_without_an_id_is_never_taken_for_another(
    memory_bus: Make, until: Until
) -> None:
    bus, handled = memory_bus(), 0

    async def handler(_order: Order) -> None:
        nonlocal handled
        handled += 1

    bus.subscribe("a.b", handler, group="g", dedup=Dedup())
    async with bus:
        for _ in range(3):
            await bus.forward(Outgoing("a.b", b'{"number":1}', {}, ""))
        await until(lambda: handled == 3)


# -- stop


async def test_a_stop_returns_what_waits_and_lets_finish_what_runs(
    faulty_bus: Make, faults: Any, seen: Any
) -> None:
    bus, log = faulty_bus("faulty://stop-order"), list[str]()

    async def slow(order: Order, bus: Bus) -> None:
        await asyncio.sleep(10)
        await bus.publish("a.done", order, message_id=f"done-{order.number}")
        log.append(f"done {order.number}")

    bus.subscribe("a.b", slow, group="g", concurrency=2, prefetch=6)
    async with bus:
        keep = faults.transport.broker  # it lives as long as somebody refers to it
        for number in range(9):
            await bus.publish("a.b", Order(number), message_id=f"m-{number}")
        await asyncio.sleep(5)
        report = await bus.close()
    assert report == StopReport(finished=2, returned=4, abandoned=0)
    assert sorted(log) == ["done 0", "done 1"]
    acked = {id for verdict, id in faults.transport.verdicts if verdict == "ack"}
    returned = {id for verdict, id in faults.transport.verdicts if verdict == "nack 0"}
    assert acked == {"m-0", "m-1"}
    assert returned == {"m-2", "m-3", "m-4", "m-5"}
    assert seen.count(NoticeKind.RETURNED) == 4
    assert not seen.of(NoticeKind.ABANDONED)
    assert await waiting(keep) == [f"m-{number}" for number in range(2, 9)]


async def waiting(broker: Any) -> list[str]:
    """Return the ids that group `g` still has to get, by reading them."""
    transport = MemoryTransport(Endpoint(url="memory://"))
    transport.broker = broker
    await transport.start()
    taken: list[Delivery] = []
    from arc_bus import Subscription

    feed = await transport.subscribe(Subscription(pattern="a.b", group="g"), taken.extend)
    feed.grant(1000)
    await asyncio.sleep(100)
    await transport.stop()
    return sorted({delivery.id or "" for delivery in taken})


async def test_what_outlasts_the_grace_is_cut_off_unsettled_and_comes_again(
    faulty_bus: Make, faults: Any, seen: Any
) -> None:
    bus, cancelled = faulty_bus("faulty://cut-off"), list[int]()

    async def endless(order: Order) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(order.number)
            raise

    bus.subscribe("a.b", endless, group="g", concurrency=2)
    async with bus:
        broker = faults.transport.broker
        for number in range(2):
            await bus.publish("a.b", Order(number), message_id=f"m-{number}")
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        report = await bus.close(grace=7)
    assert asyncio.get_running_loop().time() - before == pytest.approx(7)
    assert report == StopReport(finished=0, returned=0, abandoned=2)
    assert sorted(cancelled) == [0, 1]
    assert {verdict for verdict, _ in faults.transport.verdicts} <= {"extend"}
    assert seen.count(NoticeKind.ABANDONED) == 2
    assert not seen.of(NoticeKind.RETRIED), "a shutdown is no failure"
    assert await waiting(broker) == ["m-0", "m-1"]


async def test_a_retry_that_is_due_later_goes_back_instead_of_waiting_out_the_grace(
    faulty_bus: Make, faults: Any
) -> None:
    bus = faulty_bus("faulty://retry-at-stop")

    async def fails(_order: Order) -> None:
        raise RuntimeError("no")

    async def fails_during_the_stop(_order: Order) -> None:
        await asyncio.sleep(5)
        raise RuntimeError("no")

    retry = Retry(first=9, jitter=0)
    bus.subscribe("a.b", fails, group="g", retry=retry)
    bus.subscribe("a.c", fails_during_the_stop, group="g", retry=retry)
    async with bus:
        await bus.publish("a.b", Order(1), message_id="waits")
        await bus.publish("a.c", Order(1), message_id="runs")
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        report = await bus.close()
    assert asyncio.get_running_loop().time() - before == pytest.approx(4)
    assert report == StopReport(finished=0, returned=2, abandoned=0)
    assert faults.transport.verdicts == [("nack 0", "waits"), ("nack 0", "runs")]


async def test_a_message_that_dies_during_the_grace_is_finished(
    faulty_bus: Make, faults: Any
) -> None:
    bus = faulty_bus()

    async def fails(_order: Order) -> None:
        await asyncio.sleep(5)
        raise RuntimeError("no")

    bus.subscribe("a.b", fails, group="g", retry=Retry(attempts=1))
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(1)
        assert await bus.close() == StopReport(finished=1)
    assert faults.transport.verdicts == [("reject", "m-1")]


async def test_where_nothing_can_go_back_what_waits_is_run_and_what_is_left_is_counted(
    faulty_bus: Make, seen: Any
) -> None:
    bus, done = faulty_bus("at-most-once://"), 0

    async def slow(_order: Order) -> None:
        nonlocal done
        await asyncio.sleep(1)
        done += 1

    bus.subscribe("a.b", slow, concurrency=1)
    async with bus:
        for number in range(10):
            await bus.publish("a.b", Order(number))
        await asyncio.sleep(0.5)
        report = await bus.close(grace=5)
    assert (report.finished, report.abandoned) == (done, 10 - done)
    assert done in (5, 6)
    assert seen.count(NoticeKind.ABANDONED) == 10 - done


async def test_a_paused_subscription_stops_at_once(memory_bus: Make) -> None:
    bus = memory_bus()

    async def handler(_order: Order) -> None:
        raise AssertionError("it is paused")

    handle = bus.subscribe("a.b", handler, group="g")
    async with bus:
        handle.pause()
        await bus.publish("a.b", Order(1))
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        assert await bus.close() == StopReport(returned=1)
    assert asyncio.get_running_loop().time() == before


async def test_one_subscription_can_stop_alone_and_is_no_longer_the_bus_s(
    memory_bus: Make, until: Until
) -> None:
    bus, got = memory_bus(), list[str]()

    async def first(_order: Order) -> None:
        got.append("first")

    async def second(_order: Order) -> None:
        got.append("second")

    handle = bus.subscribe("a.b", first)
    bus.subscribe("a.b", second)
    async with bus:
        await handle.stop()
        assert await handle.stop() == StopReport()
        await bus.publish("a.b", Order(1))
        await until(lambda: got)
        assert len(bus.handles) == 1
        assert all(check.ok for check in await bus.health())
    assert got == ["second"]


async def test_twenty_random_restarts_under_load_lose_nothing(
    faulty_bus: Make, faults: Any, seen: Any
) -> None:
    """10,000 messages, stopped and restarted 20 times; duplicates are explained."""
    dice, handled, abandoned = random.Random(20), Counter[int](), 0
    keep = faulty_bus("faulty://restarts")
    async with keep:

        async def handler(order: Order) -> None:
            await asyncio.sleep(dice.random() * 0.05)
            if dice.random() < 0.01:
                raise RuntimeError("at random")
            handled[order.number] += 1

        def service() -> Bus:
            bus = faulty_bus("faulty://restarts")
            bus.subscribe("a.b", handler, group="g", concurrency=32)
            return bus

        async with service():
            pass  # the group exists from here on
        for number in range(10_000):
            await keep.publish("a.b", Order(number))
        for _ in range(20):
            bus = service()
            async with bus:
                await asyncio.sleep(dice.random() * 0.5)
                report = await bus.close(grace=dice.choice([0, 0.01, 5]))
            abandoned += report.abandoned
        async with service():
            async with asyncio.timeout(600):
                while len(handled) < 10_000:  # noqa: ASYNC110 - 10,000 events are no event
                    await asyncio.sleep(1)
    assert set(handled) == set(range(10_000))
    again = sum(count - 1 for count in handled.values())
    assert again <= abandoned, "only what was cut off may have run twice"
