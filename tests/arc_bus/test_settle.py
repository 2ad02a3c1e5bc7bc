"""Every message comes to one verdict: how often it was tried, when, and what became of it."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import pytest

from arc_bus import Breaker, Bus, Message, Notice, NoticeKind, Reject, Retry
from arc_bus.errors import (
    BusStopped,
    ConnectionLost,
    NotSettled,
    PayloadError,
    PayloadTooLarge,
    PublishRejected,
    PublishUnconfirmed,
)
from arc_bus.transport import Delivery, Outgoing, Refused, Verdict

pytestmark = pytest.mark.virtual_time

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Seen(Protocol):
    def of(self, kind: NoticeKind) -> list[Notice]: ...
    def count(self, kind: NoticeKind) -> int: ...


class Faulty(Protocol):
    on_publish: Callable[[Outgoing], None]
    on_ack: Callable[[Delivery], None]
    on_extend: Callable[[Delivery], None]
    slow_ack: float | None
    verdicts: list[tuple[str, str | None]]


class Faults(Protocol):
    acks_soon: list[tuple[Delivery, Refused]] | None
    transport: Faulty


class Order(msgspec.Struct):
    number: int


class Attempts:
    """A handler that fails as told and notes when it was started."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.starts: list[float] = []
        self.attempts: list[int] = []
        self.redelivered: list[bool] = []

    async def __call__(self, order: Order, message: Message) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        self.attempts.append(message.attempt)
        self.redelivered.append(message.redelivered)
        if self.failures:
            raise self.failures.pop(0)

    @property
    def waits(self) -> list[float]:
        return [later - at for at, later in zip(self.starts, self.starts[1:], strict=False)]


def errors(count: int) -> list[RuntimeError]:
    return [RuntimeError(f"no {number}") for number in range(count)]


EXACT = Retry(jitter=0)


async def test_a_handler_that_returns_acks_once(
    faulty_bus: Make, faults: Faults, until: Until
) -> None:
    bus, handler = faulty_bus(), Attempts()
    bus.subscribe("a.b", handler, group="g")
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: faults.transport.verdicts)
    assert faults.transport.verdicts == [("ack", "m-1")]
    assert handler.attempts == [1]
    assert handler.redelivered == [False]


async def test_an_ack_that_nobody_waits_for_holds_no_handler_up(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    acks: list[tuple[Delivery, Refused]] = []
    faults.acks_soon = acks
    bus, handler = faulty_bus(), Attempts()
    bus.subscribe("a.b", handler, group="g", concurrency=1)
    async with bus:
        for number in range(3):
            await bus.publish("a.b", Order(number), message_id=f"m-{number}")
        await until(lambda: len(acks) == 3)
        assert [delivery.id for delivery, _ in acks] == ["m-0", "m-1", "m-2"]
        assert not faults.transport.verdicts
        _, refused = acks[1]
        refused(NotSettled("the connection broke"))
        [notice] = seen.of(NoticeKind.ERROR)
        assert "not settled; expect redelivery" in notice.detail
        for delivery, _ in acks:
            delivery.settle(Verdict.ACK)


async def test_five_attempts_after_growing_waits_then_a_dead_letter_and_a_reject(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus, handler = faulty_bus(), Attempts(*errors(9))
    bus.subscribe("a.b", handler, group="g", retry=EXACT)
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: faults.transport.verdicts)
        [entry] = await bus.dead_letters("a.b").list()
    assert handler.attempts == [1, 2, 3, 4, 5]
    assert handler.redelivered == [False, True, True, True, True]
    assert handler.waits == pytest.approx([0.2, 0.4, 0.8, 1.6], abs=1e-6)
    assert faults.transport.verdicts == [("reject", "m-1")]
    assert (entry.message_id, entry.attempts, entry.text) == ("m-1", 5, "no 4")
    assert seen.count(NoticeKind.RETRIED) == 4
    assert seen.count(NoticeKind.DEAD_LETTERED) == 1


async def test_jitter_only_adds(memory_bus: Make, seen: Seen, until: Until) -> None:
    bus, handler = memory_bus(), Attempts(*errors(9))
    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=5, jitter=0.5))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
    for plain, waited in zip([0.2, 0.4, 0.8, 1.6], handler.waits, strict=True):
        assert plain - 1e-6 <= waited <= plain * 1.5 + 1e-6


async def test_a_message_that_succeeds_at_last_is_acked(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus, handler = faulty_bus(), Attempts(*errors(4))
    bus.subscribe("a.b", handler, group="g", retry=EXACT)
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: faults.transport.verdicts)
    assert faults.transport.verdicts == [("ack", "m-1")]
    assert not seen.of(NoticeKind.DEAD_LETTERED)


@pytest.mark.parametrize("attempts", [5, 10])
async def test_a_long_wait_is_the_broker_s_and_the_attempts_stay_exact(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until, attempts: int
) -> None:
    """Of 30 s until redelivery, a third is waited in process; what is longer is given back."""
    bus, handler = faulty_bus(), Attempts(*errors(99))
    retry = Retry(attempts=attempts, first=2, jitter=0)
    bus.subscribe("a.b", handler, group="g", retry=retry)
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED), 1000)
    assert handler.attempts == list(range(1, attempts + 1))
    assert handler.waits == pytest.approx(
        [2, 4, 8, 16, 30, 30, 30, 30, 30][: attempts - 1], abs=0.1
    )
    given_back = [verdict for verdict, _ in faults.transport.verdicts if "nack" in verdict]
    assert given_back == ["nack 16", *["nack 30"] * 5][: attempts - 4]


async def test_a_message_without_an_id_gets_no_more_attempts_than_others(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    """Older services send none, and the broker waits between its attempts here."""
    bus, handler = memory_bus(), Attempts(*errors(99))
    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=8, first=2, jitter=0))
    async with bus:
        await bus.forward(Outgoing("a.b", b'{"number":1}', {}, ""))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED), 1000)
        await asyncio.sleep(500)
    assert handler.attempts == list(range(1, 9))


class Odd(PayloadError):
    pass


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (Reject("never"), Retry()),
        (Odd("wrong payload"), Retry()),
        (KeyError("k"), Retry(reject_on=(LookupError,))),
        (KeyError("k"), Retry(retry_on=(OSError,))),
        (RuntimeError("k"), Retry(attempts=1)),
    ],
)
async def test_what_another_attempt_cannot_help_goes_to_the_dead_letters_at_once(
    memory_bus: Make, seen: Seen, until: Until, error: Exception, retry: Retry
) -> None:
    bus, handler = memory_bus(), Attempts(error)
    bus.subscribe("a.b", handler, group="g", retry=retry)
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert handler.attempts == [1]
    assert (entry.attempts, entry.error) == (1, type(error).__name__)


async def test_what_cannot_be_decoded_is_dead_lettered_and_stops_no_neighbour(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, handler = memory_bus(), Attempts()
    bus.subscribe("a.b", handler, group="g", concurrency=1)
    async with bus:
        for body in (b"{not json", b"\xff\xfe", b"[]", b'{"number":"x"}', b"", b'{"number":1}'):
            await bus.forward(Outgoing("a.b", body, {}, ""))
        await until(lambda: handler.attempts)
        entries = await bus.dead_letters("a.b").list()
    assert handler.attempts == [1]
    assert [entry.error for entry in entries] == ["DecodeError"] * 5
    assert [entry.body for entry in entries][:2] == [b"{not json", b"\xff\xfe"]


async def test_without_dead_letters_what_fails_is_dropped_and_counted(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus = faulty_bus()
    bus.subscribe("a.b", Attempts(*errors(9)), group="g", dead_letter=None, retry=Retry(attempts=2))
    async with bus:
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: faults.transport.verdicts)
        assert await bus.dead_letters("a.b").list() == []
    assert faults.transport.verdicts == [("reject", "m-1")]
    assert seen.count(NoticeKind.DROPPED) == 1


async def test_the_original_is_unsettled_until_its_dead_letter_is_confirmed(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus, down = faulty_bus(), True

    def fail(outgoing: Outgoing) -> None:
        if outgoing.destination.startswith("dead.") and down:
            raise ConnectionLost("the dead letters' broker is down")

    bus.subscribe("a.b", Attempts(*errors(9)), group="g", retry=Retry(attempts=1))
    async with bus:
        faults.transport.on_publish = fail
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(60)
        verdicts = {verdict for verdict, _ in faults.transport.verdicts}
        assert verdicts <= {"extend"}, "nothing but its lease was touched"
        down = False
        await asyncio.sleep(60)
        assert len(await bus.dead_letters("a.b").list()) == 1
    assert faults.transport.verdicts[-1] == ("reject", "m-1")
    assert seen.count(NoticeKind.DEAD_LETTERED) == 1


async def test_a_dead_letter_that_is_too_large_leaves_out_what_it_can_do_without(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus = faulty_bus()

    def limit(outgoing: Outgoing) -> None:
        if sum(map(len, outgoing.headers.values())) > 300:
            raise PayloadTooLarge("at most 300 bytes of headers")

    bus.subscribe("a.b", Attempts(RuntimeError("x" * 500)), group="g", retry=Retry(attempts=1))
    async with bus:
        faults.transport.on_publish = limit
        await bus.publish("a.b", Order(1), message_id="m-1", headers={"x-tenant": "blue"})
        await until(lambda: faults.transport.verdicts)
        [entry] = await bus.dead_letters("a.b").list()
    assert faults.transport.verdicts == [("reject", "m-1")]
    assert (entry.error, entry.text, entry.trace, entry.attempts) == ("RuntimeError", "", "", 1)
    assert (entry.message_id, entry.headers["x-tenant"]) == ("m-1", "blue")
    assert not seen.of(NoticeKind.ERROR)


async def test_a_dead_letter_that_never_fits_is_not_dropped_and_its_attempts_stay_exact(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    """The original goes back; each time it comes its last attempt is repeated, and no other."""
    bus, small, handler = faulty_bus(), True, Attempts(*errors(99))

    def limit(outgoing: Outgoing) -> None:
        if outgoing.destination.startswith("dead.") and small:
            raise PayloadTooLarge("at most 0 bytes")

    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=2, jitter=0))
    async with bus:
        faults.transport.on_publish = limit
        await bus.publish("a.b", Order(1), message_id="m-1")
        await until(lambda: len(handler.attempts) == 5, 200)
        assert {verdict for verdict, _ in faults.transport.verdicts} <= {"nack 30", "extend"}
        assert not seen.of(NoticeKind.DROPPED)
        assert isinstance(seen.of(NoticeKind.ERROR)[-1].error, PayloadTooLarge)
        small = False
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED), 60)
        [entry] = await bus.dead_letters("a.b").list()
    assert handler.attempts == [1, 2, 2, 2, 2, 2]
    assert handler.waits == pytest.approx([0.2, 30, 30, 30, 30], abs=0.1)
    assert entry.attempts == 2
    assert faults.transport.verdicts[-1] == ("reject", "m-1")


@pytest.mark.parametrize("error", [PublishRejected("full"), PublishUnconfirmed("no answer")])
async def test_when_dead_letters_fail_for_good_the_original_goes_back(
    faulty_bus: Make, faults: Faults, error: Exception
) -> None:
    bus = faulty_bus()

    def fail(outgoing: Outgoing) -> None:
        if outgoing.destination.startswith("dead."):
            raise error

    bus.subscribe("a.b", Attempts(*errors(99)), group="g", retry=Retry(attempts=1), lease=120)
    async with bus:
        faults.transport.on_publish = fail
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(200)
    verdicts = [verdict for verdict, _ in faults.transport.verdicts]
    assert "nack 30" in verdicts
    assert "ack" not in verdicts
    assert "reject" not in verdicts


@pytest.mark.parametrize(
    "error", [ConnectionLost("gone"), BusStopped("stopping"), PublishUnconfirmed("no answer")]
)
@pytest.mark.parametrize("first", [0.2, 15.0])
async def test_an_infrastructure_error_uses_no_attempt(
    memory_bus: Make, seen: Seen, until: Until, error: Exception, first: float
) -> None:
    """Whether the wait is in process (0.2 s) or at the broker (15 s)."""
    bus, handler = memory_bus(), Attempts(*[error] * 4, *errors(9))
    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=2, first=first, jitter=0))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED), 500)
    assert handler.attempts == [1, 1, 1, 1, 1, 2]


async def test_an_infrastructure_error_without_end_ends_with_the_lease(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, handler = memory_bus(), Attempts(*[ConnectionLost("gone")] * 9999)
    bus.subscribe("a.b", handler, group="g", lease=60, retry=Retry(attempts=2))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED), 200)
    assert 50 < handler.starts[-1] < 70
    assert len(handler.starts) < 20, "the waits do not grow"


async def test_a_time_out_is_a_failed_attempt(memory_bus: Make, seen: Seen, until: Until) -> None:
    bus, starts = memory_bus(), list[float]()

    async def handler(_order: Order) -> None:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(3600)

    bus.subscribe("a.b", handler, group="g", timeout=1, retry=Retry(attempts=3, jitter=0))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert (entry.error, entry.attempts) == ("TimeoutError", 3)
    assert starts == pytest.approx([0, 1.2, 2.6], abs=0.01)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("slow_ack", [None, 0.5])
async def test_a_handler_that_cancels_itself_harms_nobody_and_is_counted(
    faulty_bus: Make, faults: Faults, until: Until, waits: bool, slow_ack: float | None
) -> None:
    bus, done = faulty_bus(), set[int]()

    async def handler(order: Order) -> None:
        if order.number == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if waits:
                await asyncio.sleep(0)
        done.add(order.number)

    bus.subscribe("a.b", handler, group="g", concurrency=1, retry=Retry(attempts=2))
    async with bus:
        faults.transport.slow_ack = slow_ack
        for number in range(4):
            await bus.publish("a.b", Order(number), message_id=f"m-{number}")
        await until(lambda: {0, 2, 3} <= done)
        await asyncio.sleep(200)
        entries = await bus.dead_letters("a.b").list()
    settled = {id for verdict, id in faults.transport.verdicts if verdict in ("ack", "reject")}
    assert {"m-0", "m-2", "m-3"} <= settled
    assert [entry.message_id for entry in entries] == (["m-1"] if waits else [])


async def test_a_handler_that_lets_a_foreign_cancelled_error_out_has_failed(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus = memory_bus()

    async def handler(_order: Order) -> None:
        other = asyncio.create_task(asyncio.sleep(3600))
        other.cancel()
        await other

    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=3))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert entry.attempts == 3


class Unusual(BaseException):
    """No Exception, as what `pytest.fail` raises is none."""


async def test_what_is_no_exception_is_a_failure_too_and_costs_no_worker(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, handler = memory_bus(), Attempts(*(Unusual("odd") for _ in range(4)))
    bus.subscribe("a.b", handler, group="g", concurrency=2)
    async with bus:
        for number in range(6):
            await bus.publish("a.b", Order(number))
        await until(lambda: len(handler.starts) == 6)
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 4)
        entries = await bus.dead_letters("a.b").list()
    assert {(entry.error, entry.attempts) for entry in entries} == {("Unusual", 1)}


class Mute(Exception):
    def __str__(self) -> str:
        raise IndexError("no arguments")


async def test_an_error_that_cannot_be_told_is_dead_lettered_like_any_other(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, handler = memory_bus(), Attempts(Mute(), Mute())
    bus.subscribe("a.b", handler, group="g", retry=Retry(attempts=2))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert (entry.error, entry.text) == ("Mute", "its text cannot be had: IndexError")


async def test_a_dead_letter_of_a_subscriber_to_everything_does_not_come_back_to_it(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, subjects = memory_bus(), list[str]()

    async def handler(_order: Order, message: Message) -> None:
        subjects.append(message.subject)
        raise RuntimeError("no")

    for pattern in (">", "*.*", "persistent://arc/test/*"):
        bus.subscribe(pattern, handler, group="g", retry=Retry(attempts=1))
    async with bus:
        await bus.publish("a.b", Order(1))
        await bus.publish("persistent://arc/test/orders", Order(1))
        await until(lambda: seen.count(NoticeKind.DEAD_LETTERED) == 3)
        await asyncio.sleep(100)
    assert sorted(subjects) == ["a.b", "a.b", "persistent://arc/test/orders"]


async def test_dead_letters_can_be_read_by_naming_them(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, read = memory_bus(), list[str]()

    async def watch(_body: bytes, message: Message) -> None:
        read.append(message.headers["arc-dead-error"])

    bus.subscribe("a.b", Attempts(*errors(9)), group="g", retry=Retry(attempts=1))
    bus.subscribe("dead.>", watch)
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: read)
    assert read == ["RuntimeError"]


async def test_a_verdict_that_does_not_arrive_is_reported_and_the_message_comes_again(
    faulty_bus: Make, faults: Faults, seen: Seen, until: Until
) -> None:
    bus, handler, broken = faulty_bus(), Attempts(), [NotSettled("the connection broke")]

    def fail(_delivery: Delivery) -> None:
        if broken:
            raise broken.pop()

    bus.subscribe("a.b", handler, group="g")
    async with bus:
        faults.transport.on_ack = fail
        await bus.publish("a.b", Order(1), message_id="m-1")
        await asyncio.sleep(40)
    assert handler.attempts == [1, 1], "it was not the handler that failed"
    assert handler.redelivered == [False, True]
    assert seen.count(NoticeKind.ERROR) == 1


async def test_a_message_that_kills_its_readers_is_dead_lettered_after_a_hundred_deliveries(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus = memory_bus("memory://?ack_deadline=1")
    deliveries: list[int] = []

    async def handler(_order: Order, message: Message) -> None:
        deliveries.append(message.delivery.attempt)
        raise AssertionError("never run in this test")

    # A reader that takes the message and dies: its feed is closed without a verdict.
    async with bus:
        transport = bus.transports[0].transport
        subscription = bus.subscribe("c.d", handler, group="other").subscription
        subscription = msgspec.structs.replace(subscription, pattern="a.b", group="g")
        taken: list[Delivery] = []
        feed = await transport.subscribe(subscription, taken.extend)
        await bus.publish("a.b", Order(1))
        for times in range(1, 101):
            feed.grant(1)
            await until(lambda: len(taken) == times)  # noqa: B023 - awaited in the loop
            await feed.close()
            feed = await transport.subscribe(subscription, taken.extend)
        await feed.close()
        await bus.subscribe("a.b", handler, group="g")
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
        [entry] = await bus.dead_letters("a.b").list()
    assert deliveries == []
    assert entry.text == "delivered 101 times without a verdict"


async def test_after_failures_in_a_row_the_breaker_pauses_intake_and_then_goes_on(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, starts = memory_bus(), list[float]()

    async def handler(order: Order) -> None:
        starts.append(asyncio.get_running_loop().time())
        if order.number < 4:
            raise RuntimeError("no")

    bus.subscribe(
        "a.b", handler, group="g", concurrency=2, prefetch=2,
        retry=Retry(attempts=1), breaker=Breaker(failures=4, pause=100),
    )  # fmt: skip
    async with bus:
        for number in range(8):
            await bus.publish("a.b", Order(number))
        await asyncio.sleep(99)
        assert len(starts) == 4
        await asyncio.sleep(2)
        assert len(starts) == 8, "the credit withheld during the pause was given"
    assert [at for at in starts if 1 < at < 100] == []
    [opened] = [notice for notice in seen.of(NoticeKind.ERROR) if "circuit" in notice.detail]
    assert opened.pattern == "a.b"


async def test_a_success_in_between_keeps_the_breaker_closed(
    memory_bus: Make, seen: Seen, until: Until
) -> None:
    bus, handled = memory_bus(), 0

    async def handler(order: Order) -> None:
        nonlocal handled
        handled += 1
        if order.number % 3:
            raise RuntimeError("no")

    bus.subscribe(
        "a.b", handler, group="g", concurrency=1,
        retry=Retry(attempts=1), breaker=Breaker(failures=3, pause=1000),
    )  # fmt: skip
    async with bus:
        for number in range(30):
            await bus.publish("a.b", Order(number))
        await until(lambda: handled == 30)
    assert not any("circuit" in notice.detail for notice in seen.of(NoticeKind.ERROR))
