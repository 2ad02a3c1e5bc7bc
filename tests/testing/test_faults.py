"""Faults: each happens as often as it was planned, to what it was planned for, and is seen."""

from __future__ import annotations

import asyncio

import pytest

from arc_bus import Bus, Retry
from arc_bus.errors import ConfigError, ConnectionLost, PublishRejected
from arc_bus.testing import Call, Event, Faults, Recorder

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def numbers() -> list[int]:
    """What the handler of the bus was given."""
    return []


@pytest.fixture
def bus(arc_faults: Faults, arc_recorder: Recorder, arc_memory: str, numbers: list[int]) -> Bus:
    bus = Bus("shop", routes={"": arc_memory}, plugins=[arc_faults, arc_recorder])

    @bus.subscribe("shop.order.placed", group="workers", concurrency=1)
    async def handle(order: dict[str, int]) -> None:
        numbers.append(order["number"])

    return bus


async def place(bus: Bus, *numbers: int) -> None:
    for number in numbers:
        await bus.publish("shop.order.placed", {"number": number})


async def test_a_planned_failure_is_raised_once(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    arc_faults.fail_next("shop.>")
    arc_faults.fail_next("shop.order.*", error=PublishRejected("full"))
    async with bus:
        with pytest.raises(ConnectionLost, match="planned"):
            await place(bus, 1)
        with pytest.raises(PublishRejected, match="full"):
            await place(bus, 2)
        await place(bus, 3)
        await arc_recorder.expect("shop.order.placed")
    assert numbers == [3]


async def test_another_destination_uses_up_no_plan(bus: Bus, arc_faults: Faults) -> None:
    arc_faults.fail_next("shop.order.lost", times=2)
    async with bus:
        await place(bus, 1)
        assert arc_faults.left() == ["fail publish shop.order.lost x 2"]
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await bus.publish("shop.order.lost", {"number": 1})
    assert arc_faults.left() == []


async def test_a_dropped_message_is_published_and_never_seen(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    arc_faults.drop("shop.order.placed")
    async with bus:
        await place(bus, 1, 2)
        await arc_recorder.expect("shop.order.placed", {"number": 2})
    assert numbers == [2]


async def test_a_doubled_message_is_handled_twice(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    arc_faults.duplicate("shop.order.placed")
    async with bus:
        await place(bus, 1, 2)
        await arc_recorder.expect("shop.order.placed", times=3)
    assert numbers == [1, 1, 2]


async def test_a_delayed_message_comes_after_its_delay(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    loop = asyncio.get_running_loop()
    arc_faults.delay("shop.order.placed", 10.0)
    async with bus:
        began = loop.time()
        await place(bus, 1, 2)
        await arc_recorder.expect("shop.order.placed", {"number": 2})
        assert loop.time() - began < 1
        await arc_recorder.expect("shop.order.placed", {"number": 1}, within=60.0)
        assert loop.time() - began == pytest.approx(10.0)
    assert numbers == [2, 1]


async def test_reordered_messages_come_last_one_first(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    arc_faults.reorder("shop.order.placed", 3)
    async with bus:
        await place(bus, 1, 2, 3, 4)
        await arc_recorder.expect("shop.order.placed", times=4)
    assert numbers == [3, 2, 1, 4]


def test_reordering_takes_two(arc_recorder: Recorder) -> None:
    with pytest.raises(ConfigError, match="count=1"):
        Faults().reorder("shop.order.placed", 1)


async def test_a_failed_ack_is_redelivered(
    bus: Bus, arc_faults: Faults, arc_recorder: Recorder, numbers: list[int]
) -> None:
    arc_faults.fail_next("shop.order.placed", Call.ACK)
    async with bus:
        await place(bus, 1)
        found = await arc_recorder.expect("shop.order.placed", times=2, within=120.0)
    assert numbers == [1, 1]
    assert len({each.message_id for each in found}) == 1


async def test_a_failed_dead_letter_publish_does_not_settle_the_original(
    arc_faults: Faults, arc_recorder: Recorder, arc_memory: str
) -> None:
    bus = Bus("shop", routes={"": arc_memory}, plugins=[arc_faults, arc_recorder])

    @bus.subscribe("shop.order.placed", group="workers", retry=Retry(attempts=1))
    async def fail(order: dict[str, int]) -> None:
        raise ValueError("never")

    arc_faults.fail_next("dead.>", times=1)
    async with bus:
        await place(bus, 1)
        await arc_recorder.expect("shop.order.placed", event=Event.DEAD, within=600.0)
        letters = [letter async for letter in bus.dead_letters("shop.order.placed")]
    assert len(letters) == 1
