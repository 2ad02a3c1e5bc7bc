"""Queue and feed: batches, keys, leases and timers."""

from __future__ import annotations

import asyncio

import pytest

from arc_bus.policy import Subscription
from arc_bus.transport import Delivery, Endpoint, Outgoing
from arc_inmemory.transport import MemoryTransport

pytestmark = pytest.mark.virtual_time


async def started(url: str = "memory://", **options: int) -> MemoryTransport:
    transport = MemoryTransport(Endpoint(url=url, options=options))
    await transport.start()
    return transport


def outgoing(subject: str = "a.b", body: bytes = b"", **more: str) -> Outgoing:
    return Outgoing(subject, body, {}, more.get("id", ""), more.get("key"))


async def turn() -> None:
    """Let pass what was scheduled for the next turn of the loop."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_publish_never_delivers_before_it_has_returned() -> None:
    transport = await started()
    got: list[Delivery] = []
    feed = await transport.subscribe(Subscription(pattern="a.b"), got.extend)
    feed.grant(10)
    await transport.publish(outgoing())
    assert got == []
    await turn()
    assert len(got) == 1
    await transport.stop()


async def test_what_arrives_in_one_turn_is_one_batch() -> None:
    transport = await started()
    batches: list[int] = []
    feed = await transport.subscribe(
        Subscription(pattern="a.b"), lambda batch: batches.append(len(batch))
    )
    feed.grant(100)
    for _ in range(50):
        await transport.publish(outgoing())
    await turn()
    assert batches == [50]
    await transport.stop()


async def test_a_key_moves_on_when_its_owner_has_settled_all_of_it() -> None:
    transport = await started()
    first: list[Delivery] = []
    second: list[Delivery] = []
    subscription = Subscription(pattern="a.b", group="g")
    one = await transport.subscribe(subscription, first.extend)
    two = await transport.subscribe(subscription, second.extend)
    one.grant(1)
    await transport.publish(outgoing(key="k"))
    await turn()
    two.grant(10)
    await transport.publish(outgoing(key="k"))
    await transport.publish(outgoing(key="other"))
    await turn()
    assert [delivery.key for delivery in second] == ["other"]
    await one.ack(first[0])
    assert await one.pending() == 1
    one.grant(1)
    await turn()
    assert [delivery.key for delivery in first] == ["k", "k"]
    await one.ack(first[1])
    await transport.publish(outgoing(key="k"))
    await turn()
    assert [delivery.key for delivery in second] == ["other", "k"]
    await transport.stop()


async def test_what_waits_for_an_owner_that_leaves_goes_to_others() -> None:
    transport = await started()
    first: list[Delivery] = []
    second: list[Delivery] = []
    subscription = Subscription(pattern="a.b", group="g")
    one = await transport.subscribe(subscription, first.extend)
    one.grant(1)
    await transport.publish(outgoing(id="1", key="k"))
    await turn()
    two = await transport.subscribe(subscription, second.extend)
    two.grant(10)
    await transport.publish(outgoing(id="2", key="k"))
    await turn()
    assert second == []
    await one.stop()
    await turn()
    assert [delivery.id for delivery in second] == ["2"]
    await one.ack(first[0])
    await two.ack(second[0])
    assert await two.pending() == 0
    await transport.stop()


async def test_one_timer_serves_all_deadlines_and_none_is_left() -> None:
    loop = asyncio.get_running_loop()
    transport = await started(ack_deadline=30)
    got: list[Delivery] = []
    feed = await transport.subscribe(Subscription(pattern="a.b", group="g"), got.extend)
    feed.grant(1000)
    timers = len(loop._scheduled)  # type: ignore[attr-defined]
    for _ in range(10):
        for _ in range(10):
            await transport.publish(outgoing())
        await asyncio.sleep(1)
    assert len(got) == 100
    assert len(loop._scheduled) == timers + 1  # type: ignore[attr-defined]
    await asyncio.sleep(20.5)
    assert [delivery.attempt for delivery in got[100:]] == [2] * 10
    await feed.nack(got[-1], 5.0)
    await feed.close()
    live = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
    assert len(live) == timers
    await transport.stop()


async def test_a_delay_outlives_the_readers() -> None:
    transport = await started()
    got: list[Delivery] = []
    subscription = Subscription(pattern="a.b", group="g")
    feed = await transport.subscribe(subscription, got.extend)
    feed.grant(10)
    await transport.publish(outgoing())
    await turn()
    await feed.nack(got.pop(), 60.0)
    await feed.close()
    await asyncio.sleep(50)
    again = await transport.subscribe(subscription, got.extend)
    again.grant(10)
    await asyncio.sleep(9)
    assert got == []
    await asyncio.sleep(2)
    assert [delivery.attempt for delivery in got] == [2]
    await transport.stop()


async def test_verdicts_of_another_feed_are_refused_and_lose_nothing() -> None:
    from arc_bus.errors import NotSettled

    transport = await started()
    got: list[Delivery] = []
    other: list[Delivery] = []
    one = await transport.subscribe(Subscription(pattern="a.b", group="g"), got.extend)
    two = await transport.subscribe(Subscription(pattern="a.b", group="h"), other.extend)
    one.grant(1)
    two.grant(1)
    await transport.publish(outgoing())
    await turn()
    with pytest.raises(NotSettled):
        await two.ack(got[0])
    await two.ack(other[0])
    await transport.stop()


async def test_a_verdict_after_the_lease_has_ended_is_refused() -> None:
    from arc_bus.errors import NotSettled

    transport = await started(ack_deadline=10)
    got: list[Delivery] = []
    feed = await transport.subscribe(Subscription(pattern="a.b", group="g"), got.extend)
    feed.grant(2)
    await transport.publish(outgoing())
    await asyncio.sleep(11)
    assert [delivery.attempt for delivery in got] == [1, 2]
    with pytest.raises(NotSettled, match="lease had ended"):
        await feed.ack(got[0])
    await feed.ack(got[1])
    await transport.stop()
