"""The pool: bounded, fair, in lanes; no handler's context or cancellation reaches another."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_bus import Message, Subscription
from arc_bus.message import current_message
from arc_bus.pool import FAIR_SHARE, Pool
from arc_bus.reader import Reader
from arc_bus.testing.virtual_time import VirtualTimeLoop
from arc_bus.transport import Delivery
from arc_bus.wire import JSON, JsonCodec

pytestmark = pytest.mark.virtual_time

SUBSCRIPTION = Subscription(pattern="a.b")
READER = Reader[dict[str, object]](dict, {JSON: JsonCodec()})


def message(number: int, lane: object = None) -> Message:
    found = Message(Delivery("a.b", b"{}", {}, str(number)), SUBSCRIPTION, READER)
    found.lane = lane
    return found


class Bench:
    """A pool whose messages run `handler`, and what it did."""

    def __init__(
        self,
        handler: Callable[[Message], Awaitable[object]],
        concurrency: int = 4,
        *,
        lanes: bool = False,
        rate: float | None = None,
    ) -> None:
        self.handler = handler
        self.running = 0
        self.most = 0
        self.ended: list[int] = []
        self.left: list[int] = []
        self.failures: list[BaseException] = []
        self.pool = Pool(
            lambda message: self.left.append(int(message.id)),
            concurrency,
            lanes=lanes,
            rate=rate,
            failed=self._failed,
        )
        self.pool.run = self._run

    async def _run(self, message: Message) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.handler(message)
        finally:
            self.running -= 1
        self.ended.append(int(message.id))

    async def _failed(self, _message: Message, error: BaseException) -> None:
        self.failures.append(error)

    async def through(self, *messages: Message) -> None:
        self.pool.add(messages, len(messages))
        assert await self.pool.join(3600)


async def sleepy(_message: Message) -> None:
    await asyncio.sleep(1)


async def at_once(_message: Message) -> None:
    pass


@pytest.mark.parametrize("concurrency", [1, 4, 64])
async def test_at_most_concurrency_handlers_run_and_that_many_do(concurrency: int) -> None:
    bench = Bench(sleepy, concurrency)
    await bench.through(*map(message, range(100)))
    assert bench.most == concurrency
    assert sorted(bench.ended) == sorted(bench.left) == list(range(100))
    assert bench.pool.held == bench.pool.running == 0


async def test_one_worker_runs_messages_in_their_order() -> None:
    bench = Bench(sleepy, 1)
    await bench.through(*map(message, range(20)))
    assert bench.ended == list(range(20))


async def test_equal_keys_run_one_after_another_and_others_beside_them() -> None:
    now: dict[object, int] = {}
    most: dict[object, int] = {}
    together = 0

    async def handler(message: Message) -> None:
        nonlocal together
        now[message.lane] = now.get(message.lane, 0) + 1
        most[message.lane] = max(most.get(message.lane, 0), now[message.lane])
        together = max(together, sum(now.values()))
        await asyncio.sleep(1)
        now[message.lane] -= 1

    bench = Bench(handler, 8, lanes=True)
    await bench.through(*(message(number, number % 3) for number in range(30)))
    assert most == {0: 1, 1: 1, 2: 1}
    assert together == 3
    for lane in range(3):
        assert [n for n in bench.ended if n % 3 == lane] == list(range(lane, 30, 3))
    assert bench.pool.lanes == 0


async def test_a_slow_key_delays_no_other_key() -> None:
    loop = asyncio.get_running_loop()
    ended: dict[object, float] = {}

    async def handler(message: Message) -> None:
        await asyncio.sleep(100 if message.lane == "slow" else 1)
        ended[message.lane] = loop.time()

    bench = Bench(handler, 2, lanes=True)
    await bench.through(
        *(message(n, "slow") for n in range(5)), *(message(n, f"quick {n}") for n in range(10, 20))
    )
    assert max(ended[f"quick {n}"] for n in range(10, 20)) <= 10
    assert ended["slow"] == 500


async def test_a_message_without_a_key_is_in_no_lane() -> None:
    bench = Bench(sleepy, 8, lanes=True)
    await bench.through(*(message(number) for number in range(8)))
    assert bench.most == 8


leaked: ContextVar[str] = ContextVar("leaked", default="")


async def test_a_context_variable_that_a_handler_sets_is_not_seen_by_another() -> None:
    seen: list[str] = []

    async def handler(message: Message) -> None:
        seen.append(leaked.get())
        leaked.set(message.id)

    bench = Bench(handler, 2)
    await bench.through(*map(message, range(50)))
    assert seen == [""] * 50


async def test_the_current_message_is_the_handler_s_own() -> None:
    wrong: list[object] = []

    async def handler(message: Message) -> None:
        for _ in range(3):
            if current_message.get() is not message:
                wrong.append(current_message.get())
            await asyncio.sleep(0)

    bench = Bench(handler, 4)
    await bench.through(*map(message, range(40)))
    assert wrong == []
    assert current_message.get() is None


async def test_a_backlog_that_never_waits_lets_the_loop_turn() -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    bench = Bench(at_once, 1)
    asyncio.get_running_loop().call_soon(turn)
    await bench.through(*map(message, range(10 * FAIR_SHARE)))
    assert turns >= 10


async def test_a_wait_within_a_run_holds_no_slot() -> None:
    loop = asyncio.get_running_loop()
    ended: dict[str, float] = {}

    async def handler(message: Message) -> None:
        if message.id == "0":
            assert await bench.pool.sleep(100)
        ended[message.id] = loop.time()

    bench = Bench(handler, 1)
    await bench.through(*map(message, range(3)))
    assert ended == {"1": 0.0, "2": 0.0, "0": 100.0}


async def test_a_slot_that_a_wait_gives_up_goes_to_whoever_waited_for_one() -> None:
    """Else a message whose back-off is over would wait for the back-off of another."""
    loop = asyncio.get_running_loop()
    resumed: dict[str, float] = {}

    async def handler(message: Message) -> None:
        first = message.id == "0"
        if not first:
            await asyncio.sleep(5)  # holds the one slot while the first one's wait ends
        await bench.pool.sleep(1 if first else 1000)
        resumed[message.id] = loop.time()

    bench = Bench(handler, 1)
    await bench.through(message(0), message(1))
    assert resumed == {"0": 5.0, "1": 1005.0}


async def test_after_waits_the_bound_still_holds() -> None:
    async def handler(message: Message) -> None:
        await bench.pool.sleep(int(message.id) % 3)
        bench.resumed += 1
        bench.at_once = max(bench.at_once, bench.resumed)
        await asyncio.sleep(1)
        bench.resumed -= 1

    class Counting(Bench):
        resumed = 0
        at_once = 0

    bench = Counting(handler, 3)
    await bench.through(*map(message, range(50)))
    assert bench.at_once == 3


async def test_sleepers_can_be_woken_and_are_told_so() -> None:
    whole: list[bool] = []

    async def handler(_message: Message) -> None:
        whole.append(await bench.pool.sleep(3600))

    bench = Bench(handler, 2)
    bench.pool.add(map(message, range(4)), 4)
    await asyncio.sleep(1)
    bench.pool.wake_sleepers()
    assert await bench.pool.join(1)
    assert whole == [False] * 4


async def test_nothing_starts_while_paused_and_all_does_afterwards() -> None:
    bench = Bench(at_once)
    bench.pool.pause()
    bench.pool.add(map(message, range(10)), 10)
    await asyncio.sleep(100)
    assert bench.ended == []
    assert bench.pool.paused
    bench.pool.resume()
    assert await bench.pool.join(1)
    assert len(bench.ended) == 10


async def test_a_pause_for_some_seconds_ends_by_itself() -> None:
    bench = Bench(at_once)
    bench.pool.pause(5)
    bench.pool.add([message(1)], 1)
    assert await bench.pool.join(60)
    assert asyncio.get_running_loop().time() == 5


async def test_the_rate_spreads_the_starts() -> None:
    loop = asyncio.get_running_loop()
    starts: list[float] = []

    async def handler(_message: Message) -> None:
        starts.append(loop.time())

    bench = Bench(handler, 64, rate=5)
    await bench.through(*map(message, range(50)))
    for begin in range(40):
        in_a_second = [at for at in starts if starts[begin] <= at < starts[begin] + 1 - 1e-9]
        assert len(in_a_second) <= 6, starts
    assert starts[-1] == pytest.approx(49 / 5, rel=0.05)


async def test_a_failed_run_is_handed_on_and_its_worker_goes_on() -> None:
    async def handler(message: Message) -> None:
        if message.id == "1":
            raise RuntimeError("no")

    bench = Bench(handler, 1)
    await bench.through(*map(message, range(4)))
    assert [type(error) for error in bench.failures] == [RuntimeError]
    assert bench.ended == [0, 2, 3]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_handler_that_cancels_its_own_task_takes_no_slot_along(waits: bool) -> None:
    async def handler(message: Message) -> None:
        if int(message.id) % 2 == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if waits:
            await asyncio.sleep(1)

    bench = Bench(handler, 1)
    await bench.through(*map(message, range(20)))
    if waits:
        assert [type(error) for error in bench.failures] == [asyncio.CancelledError] * 10
        assert bench.ended == list(range(1, 20, 2))
    else:
        assert bench.ended == list(range(20))


@pytest.mark.parametrize("moment", ["rests", "is woken", "sleeps", "gets its slot back"])
async def test_a_worker_cancelled_by_a_handler_s_stale_reference_takes_no_slot_along(
    moment: str,
) -> None:
    workers: list[asyncio.Task[object]] = []
    working = most = 0

    async def handler(message: Message) -> None:
        nonlocal working, most
        task = asyncio.current_task()
        assert task is not None
        workers.append(task)
        if message.id == "0" and moment in ("sleeps", "gets its slot back"):
            await bench.pool.sleep(1.0)
        elif message.id != "0":
            working += 1
            most = max(most, working)
            await asyncio.sleep(2.0)
            working -= 1

    bench = Bench(handler, concurrency=1)
    bench.pool.add([message(0)], 1)
    if moment == "gets its slot back":
        bench.pool.add([message(1)], 1)
        await asyncio.sleep(1.5)  # the first has slept, and waits for the second's slot
    else:
        await asyncio.sleep(0.5)
    if moment == "is woken":
        bench.pool.add([message(1)], 1)
    workers[0].cancel()
    await asyncio.sleep(5.0)
    await bench.through(message(2), message(3))
    assert most == 1
    assert {2, 3} <= set(bench.ended)
    await bench.pool.cancel()


async def test_what_waits_can_be_taken_out_in_order_and_what_runs_stays() -> None:
    bench = Bench(sleepy, 2, lanes=True)
    messages = [message(number, number % 2) for number in range(6)]
    bench.pool.add(messages, 6)
    await asyncio.sleep(0.5)
    assert {m.id for m in bench.pool.messages()} == {str(number) for number in range(6)}
    waiting = bench.pool.take_waiting()
    assert sorted(int(m.id) for m in waiting) == [2, 3, 4, 5]
    assert bench.pool.held == bench.pool.running == 2
    bench.pool.add([message(8, 0)], 1)  # its lane is still in progress
    assert await bench.pool.join(60)
    assert bench.ended == [0, 1, 8]
    assert bench.pool.lanes == 0


@given(
    lanes=st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=12),
    drops=st.lists(st.booleans(), max_size=14),
)
def test_what_is_dropped_is_the_oldest_or_newest_of_its_kind_and_order_holds(
    lanes: list[str | None], drops: list[bool]
) -> None:
    async def main() -> None:
        bench = Bench(at_once, 1, lanes=True)
        bench.pool.pause()
        messages = [message(number, lane) for number, lane in enumerate(lanes)]
        bench.pool.add(messages, len(messages))
        kept: dict[str | None, list[int]] = {}
        for number, lane in enumerate(lanes):
            kept.setdefault(lane, []).append(number)
        for newest in drops:
            dropped = bench.pool.drop(newest=newest)
            if dropped is None:
                assert not any(kept.values())
                continue
            mates = kept[dropped.lane]  # type: ignore[index]
            assert int(dropped.id) == mates.pop(-1 if newest else 0)
        assert bench.pool.held == sum(map(len, kept.values()))
        bench.pool.resume()
        assert await bench.pool.join(60)
        for lane, numbers in kept.items():
            assert [number for number in bench.ended if lanes[number] == lane] == numbers
        assert bench.pool.lanes == 0

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


async def test_join_ends_in_time_and_can_be_hurried() -> None:
    loop = asyncio.get_running_loop()
    bench = Bench(sleepy, 1)
    bench.pool.add(map(message, range(100)), 100)
    assert not await bench.pool.join(10.5)
    assert loop.time() == 10.5
    loop.call_later(1, bench.pool.give_up)
    assert not await bench.pool.join(60)
    assert loop.time() == 11.5
    assert not await bench.pool.join(60), "hurrying holds for a join that comes later, too"
    assert loop.time() == 11.5
    await bench.pool.cancel()


async def test_cancel_ends_every_worker() -> None:
    bench = Bench(sleepy, 8)
    bench.pool.add(map(message, range(20)), 20)
    await asyncio.sleep(0.5)
    assert bench.running == 8
    await bench.pool.cancel()
    assert bench.running == 0
    assert bench.ended == []
    assert bench.failures == []


async def test_after_cancel_nothing_starts_although_workers_were_still_being_added() -> None:
    """One worker more is started each turn of the loop: those to come must not come any more."""
    begun = list[int]()

    async def handler(message: Message) -> None:
        begun.append(int(message.id))
        if message.id == "0":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return  # it has an end of its own, and has finished
        await asyncio.sleep(3600)

    bench = Bench(handler, 64)
    bench.pool.add(map(message, range(20)), 20)
    for _ in range(3):
        await asyncio.sleep(0)
    cut_off = await bench.pool.cancel()
    await asyncio.sleep(1)
    assert 1 < len(begun) < 20
    assert sorted(int(each.id) for each in cut_off) == list(range(1, 20))
    assert bench.ended == [0]


async def test_a_handler_that_resists_its_cancellation_is_left_behind() -> None:
    end = asyncio.Event()

    async def handler(_message: Message) -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    bench = Bench(handler, 1)
    bench.pool.add([message(1)], 1)
    await asyncio.sleep(1)
    await bench.pool.cancel()
    assert bench.running == 1
    end.set()
    await asyncio.sleep(1)
    assert bench.running == 0


@pytest.mark.parametrize("seed", range(20))
async def test_what_waits_behind_its_lane_is_counted_whatever_is_added_run_and_taken_out(
    seed: int,
) -> None:
    dice = random.Random(seed)
    bench = Bench(sleepy, 3, lanes=True)
    pool = bench.pool
    for number in range(200):
        match dice.randrange(8):
            case 0:
                pool.drop(newest=dice.random() < 0.5)
            case 1:
                await asyncio.sleep(dice.choice([0, 1]))
            case 2 if dice.random() < 0.1:
                pool.take_waiting()
            case _:
                pool.add([message(number, dice.choice([None, 1, 2, 3]))], 1)
        held = pool.messages()
        assert pool.held == len(held)
        in_lanes = [message.lane for message in held if message.lane is not None]
        assert pool.parked == len(in_lanes) - len(set(in_lanes))
    assert await pool.join(3600)
    assert pool.parked == pool.lanes == 0


async def test_what_a_middleware_raises_that_is_no_exception_costs_no_worker() -> None:
    async def handler(message: Message) -> None:
        if int(message.id) < 2:
            raise BaseException(message.id)

    bench = Bench(handler, concurrency=2)
    await bench.through(*map(message, range(6)))
    assert bench.ended == [2, 3, 4, 5]
    assert [str(error) for error in bench.failures] == ["0", "1"]
