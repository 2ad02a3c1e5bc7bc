"""A8, A9: how long a delivery belongs to its reader."""

from __future__ import annotations

import asyncio

from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import DEADLINE, EXTEND, GROUPS


def _deadline(lab: Lab) -> float:
    deadline = lab.capabilities.ack_deadline
    assert deadline is not None
    return deadline


@check("A8", DEADLINE)
async def a_lease_ends(lab: Lab) -> None:
    """A8: What is not settled within the ack deadline is delivered again, and not before."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    id = (await client.publish(subject)).id
    await consumer.take(1)
    began = lab.now()
    deadline = _deadline(lab)
    await lab.until(
        lambda: consumer.ids.count(id) == 2,
        lambda: "an unsettled message was not delivered again",
        within=deadline + lab.timings.late,
    )
    held = lab.now() - began
    lab.expect(held >= 0.9 * deadline, f"redelivered after {held:.3f} s of {deadline} s")
    await consumer.ack(consumer.received[1])
    await lab.fence(client, subject)


@check("A8b", DEADLINE, GROUPS)
async def a_lease_ends_for_others(lab: Lab) -> None:
    """A8b: A reader that falls silent without leaving gives its messages up to the others."""
    client, other = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    silent = await client.consume(subject, group, credit=5)
    sent = await client.publish_in_turn(subject, 5)
    await silent.take(5)
    awake = await other.consume(subject, group, eager=True)
    await lab.until(
        lambda: {*sent} <= {*awake.ids},
        lambda: f"the other reader got {awake.ids} of {sent}",
        within=_deadline(lab) + lab.timings.late,
    )


@check("A9", DEADLINE, EXTEND)
async def extending_keeps_a_lease(lab: Lab) -> None:
    """A9: A delivery that is extended in time is not delivered again, however long it takes."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish(subject)
    delivery = (await consumer.take(1))[0]
    deadline = _deadline(lab)
    for _ in range(6):
        await asyncio.sleep(0.4 * deadline)
        await consumer.extend(delivery)
    lab.expect(len(consumer.ids) == 1, f"extended in time, and delivered {len(consumer.ids)} times")
    await consumer.ack(delivery)
    await lab.fence(client, subject)


@check("A9b", DEADLINE, EXTEND)
async def extending_is_for_one(lab: Lab) -> None:
    """A9b: Extending one delivery extends no other, and ends when it is no longer done."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    kept, left = await client.publish_in_turn(subject, 2)
    first = (await consumer.take(2))[0]
    deadline = _deadline(lab)
    began = lab.now()
    await asyncio.sleep(0.6 * deadline)
    await consumer.extend(first)
    await lab.until(
        lambda: consumer.ids.count(left) == 2,
        lambda: "the delivery that was not extended did not come again",
        within=deadline + lab.timings.late,
    )
    await consumer.ack(consumer.received[-1])
    lab.expect(
        consumer.ids.count(kept) == 1, f"the extended one came with the other: {consumer.ids}"
    )
    await lab.until(
        lambda: consumer.ids.count(kept) == 2,
        lambda: "extended once only, it did not come again",
        within=2 * deadline + lab.timings.late,
    )
    held = lab.now() - began
    await consumer.ack(consumer.received[-1])
    lab.expect(
        held >= 1.4 * deadline, f"extended at 0.6 deadlines, it came at {held / deadline:.2f}"
    )
