"""The same behaviour on every transport: in memory, core NATS, JetStream and Pulsar, real servers.

Each test runs unchanged on all four. Where a transport declares that it cannot, the test holds it
to what it declares instead: nothing here asks for a transport's name.
"""

# Over 300 lines: the point is that one file says it for all transports.

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from arc_bus import (
    Bus,
    Envelope,
    Guarantee,
    Message,
    NoticeKind,
    Reject,
    RemoteError,
    Retry,
    scoped,
)
from arc_bus.errors import ConnectionLost, NoResponders, RequestTimeout, Unsupported

if TYPE_CHECKING:
    from tests.arc_bus.conftest import Place  # noqa: TID251 - types only

Until: TypeAlias = Callable[..., Awaitable[None]]


class Order(msgspec.Struct):
    key: str
    number: int


async def test_a_poison_message_in_a_stream_of_1000_is_the_only_dead_letter_and_delays_no_other_key(
    place: Place, keeper: Bus, until: Until
) -> None:
    handled, starts, others = set[int](), list[int](), asyncio.Event()
    orders = place("stream")

    async def handler(order: Order, message: Message) -> None:
        if order.number == 100:
            starts.append(message.attempt)
            if len(starts) == 5:
                # Every other key must get through while this one is still being tried.
                await asyncio.wait_for(others.wait(), place.PATIENCE)
            raise RuntimeError("poison")
        handled.add(order.number)
        if sum(number % 20 != 0 for number in handled) == 950:
            others.set()

    bus = place.bus()
    # Of the key behind it, 45 messages wait meanwhile: fewer than the bound of 256.
    bus.subscribe(orders, handler, group="g", order_by="key", retry=Retry(first=0.02))
    async with bus:
        for number in range(1000):
            await keeper.publish(orders, Order(f"k{number % 20}", number), key=f"k{number % 20}")
        await until(
            lambda: len(handled) == 999 and place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE
        )
        [entry] = await bus.dead_letters(orders).list()
    assert starts == [1, 2, 3, 4, 5]
    assert handled == set(range(1000)) - {100}
    assert (entry.attempts, entry.error, entry.text) == (5, "RuntimeError", "poison")
    assert place.count(NoticeKind.DEAD_LETTERED) == 1


async def test_order_by_keeps_200_keys_in_order_over_random_failures_and_32_workers(
    place: Place, keeper: Bus, until: Until, dice: random.Random
) -> None:
    handled = defaultdict[str, list[int]](list)
    orders, running, overlaps = place("ordered"), set[str](), list[str]()

    async def handler(order: Order) -> None:
        if order.key in running:
            overlaps.append(order.key)
        running.add(order.key)
        try:
            await asyncio.sleep(0)
            if dice.random() < 0.1:
                raise RuntimeError("at random")
        finally:
            running.discard(order.key)
        handled[order.key].append(order.number)

    bus = place.bus()
    bus.subscribe(
        orders, handler, group="g", concurrency=32, order_by="key",
        retry=Retry(attempts=1000, first=0.001, max=0.01),
    )  # fmt: skip
    async with bus:
        for number in range(5):
            for key in range(200):
                await keeper.publish(orders, Order(f"k{key}", number), key=f"k{key}")
        await until(lambda: sum(map(len, handled.values())) >= 1000, place.PATIENCE)
    assert overlaps == []
    assert len(handled) == 200
    assert [key for key, numbers in handled.items() if numbers != list(range(5))] == []


# A service of sixty lines, with its test, that knows nothing of where it runs.


class Payment(msgspec.Struct):
    order: str
    cents: int


class Receipt(msgspec.Struct):
    order: str
    total: int


class Ledger(list[Payment]):
    """The entries of all attempts that have succeeded."""

    rolled_back = 0


class Session:
    """One attempt's entries, which count when it has succeeded."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.pending: list[Payment] = []

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.ledger += self.pending
        else:
            self.ledger.rolled_back += 1


def accounting(bus: Bus, destination: Callable[[str], str], ledger: Ledger) -> None:
    """Book payments, publish receipts, and count them by order."""
    bus.provide(Session, lambda _: scoped(Session(ledger)))
    flaky = {"order-3"}

    @bus.subscribe(
        destination("payments"), group="accounting", order_by="order", concurrency=4,
        retry=Retry(attempts=3, first=0.01), timeout=30,
    )  # fmt: skip
    async def book(event: Envelope[Payment], session: Session, bus: Bus, message: Message) -> None:
        payment = event.payload
        if payment.cents <= 0:
            raise Reject(f"{payment.cents} cents cannot be booked")
        session.pending.append(payment)
        if payment.order in flaky:
            flaky.remove(payment.order)
            raise ConnectionError("the bank is away")
        receipt = Receipt(payment.order, payment.cents)
        await bus.publish(destination("receipts"), receipt, key=payment.order)
        assert message.id == event.message_id


async def test_one_service_of_sixty_lines_runs_unchanged(
    place: Place, keeper: Bus, until: Until
) -> None:
    ledger, receipts = Ledger(), list[Envelope[Receipt]]()

    async def count(event: Envelope[Receipt]) -> None:
        receipts.append(event)

    service, reader = place.bus(), place.bus()
    accounting(service, place, ledger)
    reader.subscribe(place("receipts"), count, group="reports")
    async with reader, service:
        for number in range(6):
            payment = Payment(f"order-{number}", 100 * number)
            await keeper.publish(place("payments"), payment, key=payment.order)
        await until(
            lambda: len(receipts) == 5 and place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE
        )
        [rejected] = await service.dead_letters(place("payments")).list()
    assert sorted(payment.cents for payment in ledger) == [100, 200, 300, 400, 500]
    assert ledger.rolled_back == 2, "one was rejected, one failed once"
    assert {event.payload.order for event in receipts} == {f"order-{n}" for n in range(1, 6)}
    assert {event.service for event in receipts} == {"everywhere"}
    assert (rejected.error, rejected.attempts) == ("Reject", 1)
    assert rejected.text == "0 cents cannot be booked"


async def test_a_dead_letter_keeps_bytes_and_headers_and_is_replayed_under_its_id(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, broken, got = place("replay"), True, list[tuple[bytes, str, str]]()

    async def handler(body: bytes, message: Message) -> None:
        got.append((body, message.id, message.headers["x-tenant"]))
        if broken:
            raise Reject("not now")

    bus = place.bus()
    bus.subscribe(orders, handler, group="g")
    async with bus:
        await keeper.publish(
            orders, Order("k", 1), message_id="order:1", headers={"X-Tenant": "blue"}
        )
        letters = bus.dead_letters(orders)
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE)
        entry = await letters.get("order:1")
        assert (entry.destination, entry.message_id) == (orders, "order:1")
        assert entry.body == got[0][0]
        assert entry.headers["x-tenant"] == "blue"
        broken = False
        await letters.replay(entry)
        await until(lambda: len(got) == 2, place.PATIENCE)
        assert await letters.list() == []
    assert got[0] == got[1]


async def test_what_cannot_be_decoded_is_dead_lettered_and_stops_no_neighbour(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, handled = place("broken"), list[int]()

    async def handler(order: Order) -> None:
        handled.append(order.number)

    bus = place.bus()
    bus.subscribe(orders, handler, group="g", concurrency=1)
    async with bus:
        await keeper.publish(orders, Order("k", 1))
        await keeper.publish(orders, b"\x00\xff not json")
        await keeper.publish(orders, {"key": "k", "number": "two"})
        await keeper.publish(orders, Order("k", 3))
        await until(lambda: handled == [1, 3], place.PATIENCE)
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED) == 2, place.PATIENCE)
        entries = await bus.dead_letters(orders).list()
    assert [entry.error for entry in entries] == ["DecodeError", "DecodeError"]
    assert entries[0].body == b"\x00\xff not json"


async def test_an_infrastructure_error_uses_no_attempt(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, attempts = place("infrastructure"), list[int]()

    async def handler(_order: Order, message: Message) -> None:
        attempts.append(message.attempt)
        if len(attempts) < 4:
            raise ConnectionLost("the other broker is away")
        raise RuntimeError("and now this")

    bus = place.bus()
    bus.subscribe(orders, handler, group="g", retry=Retry(attempts=2, first=0.01))
    async with bus:
        await keeper.publish(orders, Order("k", 1))
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE)
    assert attempts == [1, 1, 1, 1, 2]


async def test_a_group_shares_and_single_subscribers_get_all(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, shared, alone = place("groups"), Counter[int](), [Counter[int](), Counter[int]()]

    async def share(order: Order) -> None:
        shared[order.number] += 1

    async with place.bus() as one, place.bus() as two:
        for bus, mine in zip((one, two), alone, strict=True):

            async def get_all(order: Order, mine: Counter[int] = mine) -> None:
                mine[order.number] += 1

            await bus.subscribe(orders, share, group="g")
            await bus.subscribe(orders, get_all)
        for number in range(100):
            await keeper.publish(orders, Order("k", number))
        await until(lambda: all(len(mine) == 100 for mine in alone), place.PATIENCE)
        await until(lambda: len(shared) == 100, place.PATIENCE)
    everything = Counter(range(100))
    assert shared == everything
    assert alone == [everything, everything]


async def test_a_request_is_answered_or_refused_as_unsupported(place: Place, keeper: Bus) -> None:
    asked = place("asked")

    async def answer(order: Order) -> Order:
        if order.number < 0:
            raise LookupError("no such order")
        return Order(order.key, order.number + 1)

    bus = place.bus()
    bus.subscribe(asked, answer, group="g")
    async with bus:
        if not keeper.capabilities(asked).request_reply:
            with pytest.raises(Unsupported):
                await keeper.request(asked, Order("k", 1), Order)
            return
        answers = await asyncio.gather(
            *(
                keeper.request(asked, Order("k", n), Order, timeout=place.PATIENCE)
                for n in range(1000)
            )
        )
        assert [order.number for order in answers] == list(range(1, 1001))
        with pytest.raises(RemoteError) as raised:
            await keeper.request(asked, Order("k", -1), Order, timeout=place.PATIENCE)
    assert (raised.value.type, raised.value.message) == ("LookupError", "no such order")
    expected = NoResponders if keeper.capabilities(asked).no_responders else RequestTimeout
    with pytest.raises(expected):
        await keeper.request(place("nobody"), Order("k", 1), Order, timeout=1)


async def test_at_least_once_is_refused_at_start_where_the_route_cannot_give_it(
    place: Place,
) -> None:
    async def handler(order: Order) -> None:
        raise AssertionError(order)

    bus = place.bus()
    bus.subscribe(place("required"), handler, group="g", require=Guarantee.AT_LEAST_ONCE)
    if bus.capabilities(place("required")).delivery is Guarantee.AT_LEAST_ONCE:
        async with bus:
            assert [check for check in await bus.health() if not check.ok] == []
        return
    with pytest.raises(Unsupported, match=r"requires at-least-once.*'dead\."):
        await bus.start()


@pytest.mark.parametrize("asked", [{"ack_deadline": 1.5}], ids=[""])
async def test_short_waits_are_in_process_and_longer_ones_the_broker_s_by_one_count_of_attempts(
    place: Place, keeper: Bus, until: Until
) -> None:
    """Waits of 0.1, 0.3 and 0.9 s: of a deadline of 1.5 s a third is waited without giving back."""
    orders, attempts, deliveries = place("waits"), list[int](), list[int]()

    async def handler(_order: Order, message: Message) -> None:
        attempts.append(message.attempt)
        deliveries.append(message.delivery.attempt)
        assert message.redelivered == (message.attempt > 1)
        raise RuntimeError("no")

    bus = place.bus()
    retry = Retry(attempts=4, first=0.1, factor=3, jitter=0)
    bus.subscribe(orders, handler, group="g", retry=retry)
    async with bus:
        await keeper.publish(orders, Order("k", 1))
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE)
        [entry] = await bus.dead_letters(orders).list()
    assert attempts == [1, 2, 3, 4]
    assert entry.attempts == 4
    has_deadline = keeper.capabilities(orders).ack_deadline is not None
    assert deliveries == ([1, 1, 1, 2] if has_deadline else [1, 1, 1, 1])


@pytest.mark.parametrize("asked", [{"ack_deadline": 1.0}], ids=[""])
async def test_a_handler_that_outlasts_the_ack_deadline_runs_once_and_so_does_what_waits_behind_it(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, starts = place("slow"), list[int]()
    loop = asyncio.get_running_loop()

    async def handler(order: Order) -> None:
        starts.append(order.number)
        if order.number == 0:
            await asyncio.sleep(3.5)

    bus = place.bus()
    handle = bus.subscribe(orders, handler, group="g", concurrency=1)
    async with bus:
        began = loop.time()
        for number in range(3):
            await keeper.publish(orders, Order("k", number))
        await until(lambda: len(starts) >= 3 and not handle.in_flight, place.PATIENCE)
        assert loop.time() - began >= 3.5
        await keeper.publish(orders, Order("k", 3))  # what were to come again would come before it
        await until(lambda: starts[-1] == 3, place.PATIENCE)
    assert starts == [0, 1, 2, 3]


async def test_the_largest_body_is_dead_lettered_whatever_its_error_says(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders = place("large")
    body = b"x" * keeper.capabilities(orders).max_payload

    async def handler(_body: bytes) -> None:
        raise Reject("\N{SNOWMAN}" * 10_000)

    bus = place.bus()
    bus.subscribe(orders, handler, group="g")
    async with bus:
        await keeper.publish(orders, body, headers={"x-filling": "y" * 8000})
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED), place.PATIENCE)
        [entry] = await bus.dead_letters(orders).list()
    assert (entry.body == body, len(entry.headers["x-filling"])) == (True, 8000)
    assert entry.text == "\N{SNOWMAN}" * (1000 // len(r"\u2603"))
    assert place.count(NoticeKind.ERROR) == 0


async def test_ten_times_more_than_can_be_handled_is_held_within_the_bounds_and_accounted_for(
    place: Place, keeper: Bus, until: Until
) -> None:
    """5,000 messages of 2 KB; a handler ends for every ten of them, while they are published."""
    orders, most, handled = place("overload"), 0, set[int]()
    turns = asyncio.Semaphore(0)

    async def handler(order: Order) -> None:
        nonlocal most
        await turns.acquire()
        most = max(most, handle.in_flight)
        handled.add(order.number)

    bus = place.bus()
    handle = bus.subscribe(orders, handler, group="g", concurrency=8, prefetch=64)
    async with bus:
        for start in range(0, 5000, 100):
            await asyncio.gather(
                *(keeper.publish(orders, Order("x" * 2000, start + n)) for n in range(100))
            )
            for _ in range(10):
                turns.release()
            assert handle.in_flight <= 64
        for _ in range(5000):
            turns.release()
        await until(lambda: len(handled) + place.count(NoticeKind.DROPPED) == 5000, place.PATIENCE)
    assert most <= 64
    dropped = place.count(NoticeKind.DROPPED)
    assert 5000 - len(handled) == dropped
    assert (dropped == 0) == keeper.capabilities(orders).prefetch_bounded
