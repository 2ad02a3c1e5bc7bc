"""Recorder: what it sees, what it waits for, and what it says when it waits in vain."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from arc_bus import Bus, Reject, Retry
from arc_bus.errors import NoResponders
from arc_bus.testing import Event, Recorder

pytestmark = pytest.mark.virtual_time


class Order(msgspec.Struct):
    number: int
    colour: str = "red"


def bus_with(recorder: Recorder) -> Bus:
    return Bus("shop", routes={"": "memory://"}, plugins=[recorder])


async def test_it_sees_what_is_published_and_what_is_handled(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)

    @bus.subscribe("shop.order.placed", group="workers")
    async def handle(order: Order) -> None:
        await bus.publish("shop.order.done", {"number": order.number})

    async with bus:
        await bus.publish("shop.order.placed", Order(7), headers={"x-shop": "1"})
        (handled,) = await arc_recorder.expect("shop.order.placed", Order(7))
        (done,) = await arc_recorder.expect("shop.*.done", {"number": 7}, event=Event.PUBLISHED)
    assert handled.attempt == 1
    assert handled.headers["x-shop"] == "1"
    assert done.destination == "shop.order.done"
    assert [each.event for each in arc_recorder.seen] == [
        Event.PUBLISHED,
        Event.PUBLISHED,
        Event.HANDLED,
    ]
    assert arc_recorder.seen[0].message_id == handled.message_id


async def test_a_mapping_agrees_in_its_fields_and_a_record_in_all(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)
    async with bus:
        await bus.publish("shop.order.placed", Order(1, "blue"))
    published = Event.PUBLISHED
    assert arc_recorder.find("shop.order.placed", {"number": 1}, event=published)
    assert arc_recorder.find("shop.>", Order(1, "blue"), event=published)
    assert not arc_recorder.find("shop.>", Order(1), event=published)
    assert not arc_recorder.find("shop.>", {"number": 2}, event=published)
    assert not arc_recorder.find("shop.>", {"size": None}, event=published)
    assert not arc_recorder.find("shop.*", event=published)
    assert not arc_recorder.find("shop.>")
    arc_recorder.forget()
    assert not arc_recorder.find("shop.>", event=published)


async def test_it_waits_for_what_is_still_to_come(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)
    async with bus:

        async def later() -> None:
            for number in range(3):
                await asyncio.sleep(1)
                await bus.publish("shop.order.placed", Order(number))

        publishing = asyncio.create_task(later())
        found = await arc_recorder.expect("shop.order.placed", event=Event.PUBLISHED, times=3)
        await publishing
    assert [each.payload for each in found] == [
        {"number": number, "colour": "red"} for number in range(3)
    ]


async def test_in_vain_it_says_in_what_each_candidate_differs(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)
    async with bus:
        await bus.publish("shop.order.placed", {"number": 1, "to": {"city": "Bern"}})
        await bus.publish("shop.order.dropped", Order(2))
        with pytest.raises(AssertionError) as failed:
            await arc_recorder.expect(
                "shop.order.placed",
                {"number": 1, "to": {"city": "Rome", "zip": "00100"}},
                event=Event.PUBLISHED,
            )
    assert str(failed.value).splitlines()[1:] == [
        "  published shop.order.placed",
        "    payload.to.city: expected 'Rome', got 'Bern'",
        "    payload.to.zip: expected '00100', got nothing",
        "  published shop.order.dropped",
    ]
    assert "1 x published shop.order.placed with {'number': 1" in str(failed.value)


async def test_in_vain_with_nothing_at_all(arc_recorder: Recorder) -> None:
    with pytest.raises(AssertionError, match="nothing at all"):
        await arc_recorder.expect("shop.order.placed", within=60.0)


async def test_it_sees_a_dead_letter_with_its_attempts_and_error(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)

    @bus.subscribe("shop.order.placed", group="workers", retry=Retry(attempts=3, first=30.0))
    async def fail(order: Order) -> None:
        raise ValueError(f"no {order.colour} paint")

    async with bus:
        await bus.publish("shop.order.placed", Order(1))
        (dead,) = await arc_recorder.expect("shop.order.placed", event=Event.DEAD, within=300.0)
    assert dead.attempt == 3
    assert str(dead.error) == "no red paint"


async def test_it_sees_what_cannot_be_decoded_as_bytes(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)

    @bus.subscribe("shop.order.placed", group="workers")
    async def handle(order: Order) -> None:
        raise Reject("never reached")

    async with bus:
        await bus.publish("shop.order.placed", {"number": "seven"})
        (dead,) = await arc_recorder.expect("shop.order.placed", event=Event.DEAD)
    assert isinstance(dead.payload, bytes)


async def test_it_sees_a_request_and_one_that_was_refused(arc_recorder: Recorder) -> None:
    bus = bus_with(arc_recorder)

    @bus.subscribe("shop.price.ask", group="workers")
    async def price(order: Order) -> dict[str, int]:
        return {"price": order.number * 10}

    async with bus:
        answer = await bus.request("shop.price.ask", Order(4), dict[str, int])
        assert answer["price"] == 40
        with pytest.raises(NoResponders):
            await bus.request("shop.price.unknown", Order(4), dict[str, int])
        await arc_recorder.expect("shop.price.ask", event=Event.REQUESTED)
        (refused,) = await arc_recorder.expect("shop.price.unknown", event=Event.REFUSED)
    assert isinstance(refused.error, NoResponders)
