"""Broker: its bounds, its names, and what the conformance kit does not ask of every transport."""

from __future__ import annotations

import asyncio
import gc
import uuid

import pytest

from arc_bus.errors import BusStopped, ConfigError, PayloadTooLarge, PublishRejected
from arc_bus.policy import Subscription
from arc_bus.transport import Delivery, Endpoint, Outgoing, StartAt
from arc_inmemory.broker import named
from arc_inmemory.options import MemoryOptions
from arc_inmemory.stored import OVERHEAD
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


async def test_a_full_group_refuses_the_publish_and_no_group_gets_it() -> None:
    transport = await started(group_bytes=2 * OVERHEAD)
    got: list[Delivery] = []
    await transport.subscribe(Subscription(pattern="a.b", group="full"), got.extend)
    for _ in range(3):
        await transport.publish(outgoing())
    other: list[Delivery] = []
    feed = await transport.subscribe(Subscription(pattern="a.b", group="other"), other.extend)
    feed.grant(10)
    with pytest.raises(PublishRejected, match=r"'full'.*group_bytes=512"):
        await transport.publish(outgoing())
    await turn()
    assert other == []
    await transport.stop()


async def test_settling_makes_room_again() -> None:
    transport = await started(group_bytes=OVERHEAD)
    got: list[Delivery] = []
    feed = await transport.subscribe(Subscription(pattern="a.b", group="g"), got.extend)
    feed.grant(20)
    for _ in range(20):
        await transport.publish(outgoing(body=b"x" * 100))
        await turn()
        await feed.ack(got.pop())
    assert await feed.pending() == 0
    await transport.stop()


async def test_what_is_retained_is_bounded_too() -> None:
    transport = await started(group_bytes=2 * OVERHEAD)
    await transport.retain("dead.>")
    for _ in range(3):
        await transport.publish(outgoing("dead.a"))
    with pytest.raises(PublishRejected, match="retained"):
        await transport.publish(outgoing("dead.a"))
    kept = [delivery async for delivery in transport.browse("dead.*")]
    await transport.discard(kept[0])
    await transport.publish(outgoing("dead.a"))
    await transport.stop()


async def test_earliest_begins_at_what_is_kept() -> None:
    transport = await started(keep_bytes=5 * OVERHEAD)
    for number in range(8):
        await transport.publish(outgoing(id=str(number)))
    got: list[Delivery] = []
    subscription = Subscription(pattern="a.>", group="g", start=StartAt.EARLIEST)
    (await transport.subscribe(subscription, got.extend)).grant(100)
    await turn()
    assert [delivery.id for delivery in got] == ["3", "4", "5", "6", "7"]
    await transport.stop()


async def test_two_transports_of_one_name_share_a_broker_and_private_ones_do_not() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    assert (await started(url)).broker is (await started(url)).broker
    assert (await started()).broker is not (await started()).broker


async def test_a_name_ends_with_its_last_holder() -> None:
    name = uuid.uuid4().hex
    broker = named(name, MemoryOptions())
    assert MemoryTransport(Endpoint(url=f"memory://{name}")).broker is broker
    identity = id(broker)
    await broker_is_dropped(name)
    assert named(name, MemoryOptions()) is broker, f"kept by this reference: {identity}"
    del broker
    gc.collect()
    # With other options this would be refused if the old broker were still there.
    named(name, MemoryOptions(ack_deadline=1.0))


async def broker_is_dropped(name: str) -> None:
    transport = await started(f"memory://{name}")
    await transport.publish(outgoing())
    await transport.stop()


async def test_one_name_cannot_have_two_sets_of_options() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    first = await started(url)
    with pytest.raises(ConfigError, match="ack_deadline=5"):
        MemoryTransport(Endpoint(url=f"{url}?ack_deadline=5"))
    await first.stop()


def test_one_broker_belongs_to_one_event_loop() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    kept = MemoryTransport(Endpoint(url=url))

    async def start() -> None:
        await MemoryTransport(Endpoint(url=url)).start()

    asyncio.run(start())
    with pytest.raises(ConfigError, match="another event loop"):
        asyncio.run(start())
    assert kept.broker is named(url.removeprefix("memory://"), MemoryOptions())


async def test_a_waiting_request_ends_with_its_transport() -> None:
    transport = await started()
    got: list[Delivery] = []
    (await transport.subscribe(Subscription(pattern="a.b"), got.extend)).grant(1)
    asking = asyncio.create_task(transport.request(outgoing(), 3600.0))
    await turn()
    assert len(got) == 1
    await transport.stop()
    with pytest.raises(BusStopped):
        await asking


async def test_a_reply_where_none_is_wanted_is_refused() -> None:
    transport = await started()
    with pytest.raises(ConfigError, match=r"'a\.b' asks for no reply"):
        await transport.reply(Delivery("a.b", b"", {}), outgoing())
    await transport.stop()


async def test_headers_have_room_beside_the_largest_body() -> None:
    """So that a dead letter, which has more of them, fits wherever its original did."""
    transport = await started(max_payload=1000)
    await transport.publish(Outgoing("a.b", b"x" * 1000, {"name": "é" * 4000}, ""))
    with pytest.raises(PayloadTooLarge, match=r"1001 bytes.*1000"):
        await transport.publish(Outgoing("a.b", b"x" * 1001, {}, ""))
    await transport.stop()


async def test_topics_have_a_wildcard_for_their_last_part() -> None:
    transport = await started()
    got: list[Delivery] = []
    (await transport.subscribe(Subscription(pattern="persistent://t/n/*"), got.extend)).grant(9)
    for topic in ("persistent://t/n/a", "persistent://t/m/a", "persistent://t/n/b-dlq"):
        await transport.publish(outgoing(topic))
    await turn()
    assert [delivery.subject for delivery in got] == [
        "persistent://t/n/a",
        "persistent://t/n/b-dlq",
    ]
    await transport.stop()


async def test_one_destination_finds_its_reader_among_ten_thousand() -> None:
    transport = await started()
    got: list[Delivery] = []
    for number in range(10_000):
        await transport.subscribe(Subscription(pattern=f"a.s{number}", group="g"), got.extend)
    feed = await transport.subscribe(Subscription(pattern="a.*", group="all"), got.extend)
    feed.grant(1)
    await transport.publish(outgoing("a.s9999"))
    await turn()
    assert [delivery.subject for delivery in got] == ["a.s9999"]
    await transport.stop()
