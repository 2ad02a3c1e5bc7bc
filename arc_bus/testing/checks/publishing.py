"""P: what publishing promises."""

from __future__ import annotations

import asyncio

from arc_bus.testing.check import check
from arc_bus.testing.client import Draft
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import DEDUP, REDELIVERY
from arc_bus.transport import Outgoing


@check("P1")
async def roundtrip(lab: Lab) -> None:
    """P1: What is published arrives once, with its own body, subject and id."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    sent = [await client.publish(subject, Draft(body=b"body %d" % n)) for n in range(20)]
    await lab.all_arrived()
    bodies = {delivery.id: delivery.body for delivery in consumer.received}
    wanted = {outgoing.id: outgoing.body for outgoing in sent}
    lab.expect(bodies == wanted, f"bodies by id were {bodies}, not {wanted}")


@check("P2")
async def concurrent_publishers(lab: Lab) -> None:
    """P2: 50 concurrent publishers on two clients lose nothing."""
    first, second = await lab.client(), await lab.client()
    subject = lab.subject()
    await first.consume(subject, eager=True)
    await asyncio.gather(
        *(client.publish_in_turn(subject, 10) for client in (first, second) for _ in range(25))
    )
    await lab.all_arrived()


@check("P3")
async def isolation(lab: Lab) -> None:
    """P3: A subject's messages never reach the reader of another, even if one begins the other."""
    client = await lab.client()
    subject = lab.subject("orders")
    twins = [f"{subject}x", f"{subject}.more", subject[:-1], lab.subject("orders")]
    readers = [await client.consume(name, eager=True) for name in (subject, *twins)]
    for _ in range(3):
        for name in (subject, *twins):
            await client.publish(name)
    await lab.fence(client, subject, *twins)
    for reader in readers:
        lab.expect(len(reader.ids) == 4, f"{reader.reader.pattern!r} got {len(reader.ids)}, not 4")


@check("P5")
async def stop_flushes(lab: Lab) -> None:
    """P5: What publish() accepted arrives although the publisher stops at once."""
    reader, publisher = await lab.client(), await lab.client()
    subject = lab.subject()
    await reader.consume(subject, eager=True)
    await publisher.publish_at_once(subject, 100)
    await publisher.stop()
    await lab.all_arrived()


@check("P5b")
async def flush_then_silence(lab: Lab) -> None:
    """P5b: flush() returns, again and again, with messages before it and without."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    await client.transport.flush()
    for _ in range(3):
        await client.publish_at_once(subject, 10)
        await client.transport.flush()
    await lab.all_arrived()


@check("P8", DEDUP)
async def same_id_once(lab: Lab) -> None:
    """P8: A publish repeated with the same id within the window is delivered once."""
    client, other = await lab.client(), await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    again = Outgoing(subject, b"again", {}, lab.new_id())
    await client.send(again)
    await client.send(again)
    await other.send(again)
    await lab.fence(client, subject)
    times = consumer.ids.count(again.id)
    lab.expect(times == 1, f"published three times with one id, delivered {times} times")


@check("P8b", ~DEDUP)
async def same_id_twice(lab: Lab) -> None:
    """P8b: Without a declared window, a repeated id is carried like any other message."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    again = Outgoing(subject, b"again", {}, lab.new_id())
    await client.send(again)
    await client.send(again)
    await lab.fence(client, subject)
    times = consumer.ids.count(again.id)
    lab.expect(times == 2, f"published twice, delivered {times} times")


@check("P10")
async def nobody_listens(lab: Lab) -> None:
    """P10: Publishing where nobody listens succeeds, and costs nobody a message later."""
    client = await lab.client()
    subject = lab.subject()
    await client.publish_in_turn(subject, 3)
    consumer = await client.consume(subject, eager=True)
    sent = await client.publish_in_turn(subject, 3)
    await lab.fence(client, subject)
    lab.expect(consumer.ids[:3] == sent, f"a new reader got {consumer.ids}, published: {sent}")


@check("P12", REDELIVERY)
async def publish_while_nobody_reads(lab: Lab) -> None:
    """P12: What is published while a group's only reader has no credit waits for it."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0, eager=True)
    await client.publish_at_once(subject, 50)
    consumer.grant(1000)
    await lab.all_arrived()
