"""Requests: answered, refused at once, or in time; never started when nobody waits any more."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from arc_bus import Bus, Message, NoticeKind, Reject, RemoteError, Retry
from arc_bus.errors import (
    DecodeError,
    EncodeError,
    NoResponders,
    NotSettled,
    RequestTimeout,
    TransportError,
)
from arc_bus.replying import DEADLINE, deadline_header, remaining, within_deadline
from arc_bus.transport import Outgoing

pytestmark = pytest.mark.virtual_time

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Order(msgspec.Struct):
    number: int


class Answer(msgspec.Struct):
    number: int
    service: str | None = None


async def test_a_thousand_parallel_requests_get_their_own_answers(memory_bus: Make) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b", group="g")
    async def handler(order: Order) -> Answer:
        await asyncio.sleep(order.number % 7)
        return Answer(order.number)

    async with bus:
        answers = await asyncio.gather(
            *(bus.request("a.b", Order(number), Answer, timeout=1000) for number in range(1000))
        )
    assert [answer.number for answer in answers] == list(range(1000))
    assert {answer.service for answer in answers} == {"service"}, "a reply is an event, too"


@pytest.mark.parametrize(
    ("result", "reply", "expected"),
    [
        (Answer(1), dict, {"number": 1}),
        ({"number": 1}, Answer, Answer(1, "service")),
        ({}, dict, {}),
        (None, dict, {}),
        (b"\x00\xff", bytes, b"\x00\xff"),
    ],
)
async def test_whatever_a_handler_returns_is_the_reply(
    memory_bus: Make, result: object, reply: type[object], expected: object
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(_order: Order) -> object:
        return result

    async with bus:
        assert await bus.request("a.b", Order(1), reply) == expected


@pytest.mark.parametrize(("pattern", "group"), [("a.>", None), ("a.b", None), ("a.*", "loggers")])
async def test_who_only_watches_answers_no_request(
    memory_bus: Make, seen: Any, pattern: str, group: str | None
) -> None:
    """It sees every request as an event: failing ones are tried again and dead-lettered."""
    bus, watched = memory_bus(), list[int]()

    @bus.subscribe(pattern, group=group, retry=Retry(attempts=2))
    async def watch(order: Order) -> None:
        watched.append(order.number)
        if order.number == 2:
            raise LookupError("on purpose")

    @bus.subscribe("a.b", group="servers")
    async def serve(order: Order) -> Answer:
        await asyncio.sleep(60)
        return Answer(order.number)

    async with bus:
        for number in (1, 2):
            answer = await bus.request("a.b", Order(number), Answer, timeout=100)
            assert answer.number == number
    assert watched == [1, 2, 2]
    assert len(seen.of(NoticeKind.DEAD_LETTERED)) == 1


async def test_a_handler_of_a_group_answers_though_it_returns_nothing(memory_bus: Make) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b", group="servers")
    async def serve(_order: Order) -> None: ...

    async with bus:
        assert await bus.request("a.b", Order(1), dict) == {}


async def test_a_raising_handler_answers_at_once_with_type_message_and_whether_to_try_again(
    memory_bus: Make, seen: Any
) -> None:
    bus, attempts = memory_bus(), 0

    @bus.subscribe("a.b", group="g", retry=Retry(attempts=5, reject_on=(LookupError,)))
    async def handler(order: Order) -> None:
        nonlocal attempts
        attempts += 1
        raise LookupError("gone") if order.number else OSError("away")

    async with bus:
        before = asyncio.get_running_loop().time()
        with pytest.raises(RemoteError) as away:
            await bus.request("a.b", Order(0), Answer)
        with pytest.raises(RemoteError) as gone:
            await bus.request("a.b", Order(1), Answer)
        assert asyncio.get_running_loop().time() == before
    assert (away.value.type, away.value.message, away.value.retryable) == ("OSError", "away", True)
    assert (gone.value.type, gone.value.retryable) == ("LookupError", False)
    service = bus.service
    assert str(gone.value) == f"request to 'a.b': {service} answered with LookupError: gone"
    assert (gone.value.service, gone.value.destination) == (service, "a.b")
    assert attempts == 2, "the requester decides whether to try again"
    assert not seen.of(NoticeKind.DEAD_LETTERED)
    assert not seen.of(NoticeKind.RETRIED)


class Mute(Exception):
    """Cannot say what it is, as errors whose arguments went missing cannot."""

    def __str__(self) -> str:
        raise IndexError("no arguments")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Mute(), "Mute: its text cannot be had: IndexError"),
        (ValueError("half a \ud800 pair"), r"ValueError: half a \ud800 pair"),
    ],
)
async def test_an_error_whose_text_cannot_be_had_or_sent_is_told_at_once_too(
    memory_bus: Make, error: Exception, told: str
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b", group="g")
    async def handler(_said: dict[str, object]) -> None:
        raise error

    async with bus:
        with pytest.raises(RemoteError) as raised:
            await bus.request("a.b", {}, dict[str, object])
    assert str(raised.value).endswith(f" answered with {told}")


async def test_an_error_from_further_away_keeps_its_own_name(memory_bus: Make) -> None:
    bus = memory_bus()

    @bus.subscribe("a.front")
    async def front(order: Order, bus: Bus) -> Answer:
        return await bus.request("a.back", order, Answer)

    @bus.subscribe("a.back")
    async def back(_order: Order) -> Answer:
        raise Reject("never")

    async with bus:
        with pytest.raises(RemoteError) as raised:
            await bus.request("a.front", Order(1), Answer)
    assert (raised.value.type, raised.value.message) == ("Reject", "never")
    assert not raised.value.retryable


async def test_an_undecodable_request_is_answered_so(memory_bus: Make) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b", group="g")
    async def handler(_order: Order) -> None:
        raise AssertionError("never run")

    async with bus:
        with pytest.raises(RemoteError, match=r"DecodeError: Expected `int`") as raised:
            await bus.request("a.b", {"number": "one"}, Answer)
    assert not raised.value.retryable


@pytest.mark.parametrize("result", [7, "text", [1], object()])
async def test_a_result_that_cannot_be_encoded_is_told_at_once(
    memory_bus: Make, seen: Any, result: object
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(_order: Order) -> object:
        return result

    async with bus:
        with pytest.raises(RemoteError) as raised:
            await bus.request("a.b", Order(1), Answer)
    assert raised.value.type == EncodeError.__name__
    assert [notice.detail for notice in seen.of(NoticeKind.ERROR)] == ["reply not sent"]


async def test_a_reply_that_cannot_be_sent_is_reported_and_harms_no_other(
    faulty_bus: Make, faults: Any, seen: Any
) -> None:
    bus = faulty_bus()

    @bus.subscribe("a.b", group="g", concurrency=1)
    async def handler(order: Order) -> Answer:
        return Answer(order.number)

    def fail(outgoing: Outgoing) -> None:
        if b'"number":1' in outgoing.body or b"NotSettled" in outgoing.body:
            raise NotSettled("the way back is broken")

    async with bus:
        faults.transport.on_reply = fail
        with pytest.raises(RequestTimeout):
            await bus.request("a.b", Order(1), Answer)
        assert (await bus.request("a.b", Order(2), Answer)).number == 2
    assert seen.count(NoticeKind.ERROR) == 2


async def test_an_answer_of_another_type_is_a_decode_error(memory_bus: Make) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(_order: Order) -> dict[str, str]:
        return {"number": "one"}

    async with bus:
        with pytest.raises(DecodeError):
            await bus.request("a.b", Order(1), Answer)


async def test_nobody_listening_is_known_at_once(memory_bus: Make) -> None:
    bus = memory_bus()
    async with bus:
        before = asyncio.get_running_loop().time()
        with pytest.raises(NoResponders, match=r"a\.b"):
            await bus.request("a.b", Order(1), Answer)
        assert asyncio.get_running_loop().time() == before


async def test_a_request_without_an_answer_in_time_fails_then_and_a_late_answer_is_dropped(
    memory_bus: Make, seen: Any
) -> None:
    bus, finished = memory_bus(), 0

    @bus.subscribe("a.b")
    async def handler(order: Order) -> Answer:
        nonlocal finished
        await asyncio.sleep(10 * order.number)
        finished += 1
        return Answer(order.number)

    async with bus:
        with pytest.raises(RequestTimeout, match=r"a\.b"):
            await bus.request("a.b", Order(1), Answer, timeout=2)
        assert asyncio.get_running_loop().time() == 2
        answer = await bus.request("a.b", Order(0), Answer, timeout=20)
        await asyncio.sleep(20)
    assert answer.number == 0
    assert finished == 2
    assert not seen.of(NoticeKind.ERROR)


async def test_the_deadline_travels_with_the_request(memory_bus: Make) -> None:
    bus, headers = memory_bus(), list[str]()

    @bus.subscribe("a.b", group="g")
    async def handler(_order: Order, message: Message) -> None:
        headers.append(message.headers[DEADLINE])

    async with bus:
        before = time.time()
        await bus.request("a.b", Order(1), dict, timeout=7)
        after = time.time()
    assert before + 6.999 <= int(headers[0]) / 1000 <= after + 7


async def test_the_deadline_shrinks_with_every_hop(memory_bus: Make) -> None:
    bus, left = memory_bus(), dict[str, float]()

    @bus.subscribe("a.front")
    async def front(order: Order, bus: Bus) -> Answer:
        return await bus.request("a.back", order, Answer, timeout=1000)

    @bus.subscribe("a.back")
    async def back(order: Order, message: Message) -> Answer:
        found = remaining(message.headers)
        assert found is not None
        left["back"] = found
        return Answer(order.number)

    async with bus:
        await bus.request("a.front", Order(1), Answer, timeout=5)
        await bus.publish("a.front", Order(1))  # an event has no deadline that could be passed on
        assert left["back"] <= 5
        await asyncio.sleep(1)
    assert 990 < left["back"] <= 1000


async def test_an_expired_request_is_not_started_but_counted(memory_bus: Make, seen: Any) -> None:
    bus, started = memory_bus(), list[int]()

    @bus.subscribe("a.b", group="g")
    async def handler(order: Order) -> Answer:
        started.append(order.number)
        return Answer(order.number)

    async with bus:
        transport = bus.transports[0].transport
        for number, deadline in enumerate([deadline_header(-0.001), "0", deadline_header(60)]):
            body = b'{"number":%d}' % number
            outgoing = Outgoing("a.b", body, {DEADLINE: deadline}, f"m-{number}")
            if number < 2:
                with pytest.raises(RequestTimeout):
                    await transport.request(outgoing, 1)
            else:
                await transport.request(outgoing, 1)
        [handle] = bus.handles
        assert await handle.pending() == 0
    assert started == [2]
    assert bus.lost == {"a.b": 2}
    assert [notice.count for notice in seen.of(NoticeKind.DROPPED)] == [1, 1]
    assert "after its deadline" in seen.of(NoticeKind.DROPPED)[0].detail


@pytest.mark.parametrize("deadline", ["", "soon", "-1", "1e99", "9" * 5000, "\u0663", "1.5"])
async def test_a_hostile_deadline_is_no_deadline(memory_bus: Make, deadline: str) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(order: Order) -> Answer:
        return Answer(order.number)

    async with bus:
        transport = bus.transports[0].transport
        outgoing = Outgoing("a.b", b'{"number":1}', {DEADLINE: deadline}, "m-1")
        if deadline == "\u0663":  # a decimal digit in Arabic: three milliseconds after 1970
            with pytest.raises(RequestTimeout):
                await transport.request(outgoing, 1)
        else:
            assert b'"number":1' in (await transport.request(outgoing, 1)).body


def test_outside_a_request_the_time_out_is_the_caller_s_own() -> None:
    assert within_deadline(5, None) == 5


async def test_gather_collects_the_answers_of_all_who_listen(memory_bus: Make) -> None:
    bus = memory_bus()

    for name in ("one", "two", "broken", "slow"):

        async def handler(order: Order, name: str = name) -> Answer:
            if name == "broken":
                raise RuntimeError("no")
            await asyncio.sleep(60 if name == "slow" else 0)
            return Answer(order.number + len(name))

        bus.subscribe("a.b", handler)

    async with bus:
        answers = await bus.gather("a.b", Order(1), Answer, most=10, timeout=5)
        assert [answer.number for answer in answers] == [4, 4]
        # The error counts as one of the two.
        assert len(await bus.gather("a.b", Order(1), Answer, most=2, timeout=5)) in (1, 2)
        assert await bus.gather("a.nobody", Order(1), Answer, most=1, timeout=5) == []


async def test_a_request_that_times_out_at_the_transport_is_no_transport_error(
    memory_bus: Make,
) -> None:
    bus = memory_bus()

    @bus.subscribe("a.b")
    async def handler(_order: Order) -> None:
        await asyncio.sleep(60)

    async with bus:
        with pytest.raises(RequestTimeout) as raised:
            await bus.request("a.b", Order(1), Answer, timeout=0)
        assert not isinstance(raised.value, TransportError)
