"""What a publish promises: confirmed, in order, bounded, and never the loop's time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import BusStopped, ConfigError, PayloadTooLarge, PublishRejected, Unsupported
from arc_bus.transport import Outgoing
from arc_pulsar.options import PulsarOptions
from arc_pulsar.transport import MAX_PAYLOAD

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        Connect,
        Rig,
    )


async def test_body_headers_key_and_id_arrive_as_they_were_sent(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    headers = {"content-type": "x/y", "umlaut": "ä€🎉", "empty": "", "space": " a "}
    body = bytes(range(256))
    await rig.transport.publish(Outgoing(topic, body, headers, "the-id", "the-key"))
    await rig.transport.publish(Outgoing(topic, b"", {}, "bare"))
    full, bare = await reader.until(2)
    assert (full.subject, full.body, full.headers) == (topic, body, headers)
    assert (full.id, full.key, full.reply_to, full.attempt) == ("the-id", "the-key", None, 1)
    assert (bare.body, bare.headers, bare.id, bare.key) == (b"", {}, "bare", None)


async def test_concurrent_publishes_of_one_task_arrive_in_the_order_of_the_calls(
    rig: Rig, topic: str
) -> None:
    reader = await rig.read(topic)
    bodies = [b"%d" % number for number in range(1000)]  # the first ones wait for the producer
    await rig.publish_together(topic, bodies)
    await reader.until(1000)
    assert reader.bodies == bodies


@pytest.mark.parametrize("confirm", ["each", "group"])
async def test_waiting_for_room_keeps_the_order_and_loses_nothing(
    connect: Connect, topic: str, confirm: str
) -> None:
    rig = await connect(PulsarOptions(max_pending=7, max_pending_bytes=2000), f"?confirm={confirm}")
    reader = await rig.read(topic)
    bodies = [b"%d" % number + b"." * (number % 300) for number in range(500)]
    await rig.publish_together(topic, bodies)
    await reader.until(500)
    assert reader.bodies == bodies


async def test_the_bound_holds_and_a_burst_never_meets_a_full_queue(
    connect: Connect, topic: str
) -> None:
    rig = await connect({"max_pending": 10})
    await rig.publish(topic, b"first")
    (producer,) = rig.transport._producers.values()
    sends = [asyncio.ensure_future(rig.publish(topic, b"%d" % n)) for n in range(300)]
    most = 0
    while not all(send.done() for send in sends):
        await asyncio.sleep(0)
        most = max(most, producer.pending)
    await asyncio.gather(*sends)
    assert most == 10


async def test_a_small_message_does_not_overtake_a_large_one_that_waits_for_room(
    connect: Connect, topic: str
) -> None:
    rig = await connect({"max_pending_bytes": 1000})
    reader = await rig.read(topic)
    await rig.publish(topic, b"warm")
    bodies = [b"a" * 900, b"b" * 500, b"c"]
    await rig.publish_together(topic, bodies)
    await reader.until(4)
    assert reader.bodies[1:] == bodies


async def test_a_message_larger_than_all_bounds_on_pending_bytes_still_goes(
    connect: Connect, topic: str
) -> None:
    rig = await connect({"max_pending_bytes": 10})
    reader = await rig.read(topic)
    await rig.publish_together(topic, [b"x" * 100, b"y" * 100])
    assert len(await reader.until(2)) == 2


async def test_the_largest_message_arrives_and_one_byte_more_is_refused(
    rig: Rig, topic: str
) -> None:
    reader = await rig.read(topic)
    generator = random.Random(4)
    largest = generator.randbytes(MAX_PAYLOAD)  # incompressible: the worst case on the wire
    await rig.publish(topic, largest)
    with pytest.raises(PayloadTooLarge, match=str(MAX_PAYLOAD)):
        await rig.publish(topic, largest + b"x")
    headers = {f"name-{number}": "v" * 1000 for number in range(60)}
    await rig.transport.publish(Outgoing(topic, largest, headers, "with-headers"))
    more = {f"name-{number}": "v" * 1000 for number in range(66)}
    with pytest.raises(PayloadTooLarge):
        await rig.transport.publish(Outgoing(topic, largest, more, "too-large"))
    got = await reader.until(2)
    assert got[0].body == largest
    assert (got[1].body, got[1].headers) == (largest, headers)


async def test_a_cancelled_publish_that_waited_for_room_is_not_sent(
    connect: Connect, topic: str
) -> None:
    rig = await connect({"max_pending": 1})
    reader = await rig.read(topic)
    first, second, third = (
        asyncio.ensure_future(rig.publish(topic, body)) for body in (b"1", b"2", b"3")
    )
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({first, second, third})
    assert second.cancelled()
    await rig.publish(topic, b"fence")
    await reader.until(3)
    assert reader.bodies == [b"1", b"3", b"fence"]


async def test_a_publish_cancelled_after_sending_frees_its_place(
    connect: Connect, topic: str
) -> None:
    rig = await connect({"max_pending": 2})
    await rig.publish(topic, b"warm")
    for number in range(50):
        send = asyncio.ensure_future(rig.publish(topic, b"%d" % number))
        await asyncio.sleep(0)
        send.cancel()
        with pytest.raises(asyncio.CancelledError):
            await send
    async with asyncio.timeout(10):
        await rig.publish(topic, b"after")
    await rig.transport.flush()


async def test_flush_returns_when_what_was_published_before_is_stored(rig: Rig, topic: str) -> None:
    sends = [asyncio.ensure_future(rig.publish(topic, b"%d" % n)) for n in range(200)]
    await asyncio.sleep(0)
    await rig.transport.flush()
    assert all(send.done() for send in sends)


async def test_publishing_to_a_missing_namespace_names_it_and_the_next_try_is_a_new_one(
    rig: Rig, real_pulsar_server: object
) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="persistent://public/nowhere/x"):
            await rig.publish("persistent://public/nowhere/x", b"")


async def test_topics_that_keep_nothing_are_refused(rig: Rig) -> None:
    with pytest.raises(Unsupported, match="at-least-once"):
        await rig.publish("non-persistent://public/default/x", b"")


async def test_what_the_library_cannot_encode_is_refused_without_showing_it(
    rig: Rig, topic: str
) -> None:
    with pytest.raises(PublishRejected) as caught:
        await rig.transport.publish(Outgoing(topic, b"", {"x": "secret\ud800"}, "an-id"))
    assert "an-id" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_nothing_can_be_published_before_start_or_after_stop(
    connect: Connect, rig: Rig, topic: str
) -> None:
    await rig.transport.stop()
    with pytest.raises(BusStopped, match="stopped"):
        await rig.publish(topic, b"")
    with pytest.raises(BusStopped, match="stopped"):
        await rig.transport.start()


async def test_stop_waits_for_what_was_accepted(connect: Connect, topic: str) -> None:
    writer, other = await connect(), await connect()
    reader = await other.read(topic)
    sends = [asyncio.ensure_future(writer.publish(topic, b"%d" % n)) for n in range(200)]
    await asyncio.sleep(0)
    await writer.transport.stop()
    results = await asyncio.gather(*sends)
    assert results == [None] * 200
    await reader.until(200)


@pytest.mark.parametrize("confirm", ["each", "group"])
async def test_partitions_get_everything_and_keep_each_keys_order(
    connect: Connect, partitioned: str, confirm: str
) -> None:
    rig = await connect({"confirm": confirm})
    reader = await rig.read(partitioned)
    await asyncio.gather(
        *(
            rig.publish(partitioned, b"%d:%d" % (number, key), key=f"k{key}" if key else None)
            for number in range(60)
            for key in range(10)
        )
    )
    got = await reader.until(600)
    assert {delivery.subject for delivery in got} == {partitioned}
    for key in range(1, 10):
        numbers = [int(d.body.split(b":")[0]) for d in got if d.key == f"k{key}"]
        assert numbers == list(range(60))
    assert sorted(d.body for d in got if d.key is None) == sorted(b"%d:0" % n for n in range(60))
