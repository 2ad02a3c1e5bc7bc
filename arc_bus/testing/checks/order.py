"""O: in which order messages arrive."""

from __future__ import annotations

import asyncio

from arc_bus.testing.check import check
from arc_bus.testing.client import Client
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import (
    GROUPS,
    NACK,
    ORDER_AFTER_NACK,
    ORDER_IN_GROUP,
    ORDER_OVER_RECONNECT,
    ORDERED,
    REDELIVERY,
)

_KEYS = ("anna", "bert", "cleo", "dora")


async def _publish_keyed(client: Client, subject: str, each: int) -> None:
    """Publish `each` messages a key: those of a key in turn, the keys at the same time."""
    await asyncio.gather(*(client.publish_in_turn(subject, each, key) for key in _KEYS))


@check("O1", ORDERED)
async def one_reader_sees_the_order(lab: Lab) -> None:
    """O1: One reader gets messages in the order of publishing, within what is declared."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    await _publish_keyed(client, subject, 25)
    await lab.all_arrived()


@check("O1b", ORDERED, GROUPS)
async def a_group_of_one_sees_the_order(lab: Lab) -> None:
    """O1b: So does the only reader of a group, with the backlog it finds."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0, eager=True)
    await _publish_keyed(client, subject, 15)
    for _ in range(12):
        consumer.grant(5)
    await lab.all_arrived()


@check("O2", ORDERED, GROUPS, ORDER_IN_GROUP)
async def members_keep_the_order(lab: Lab) -> None:
    """O2: Three members of a group that orders by key together see the order of each key."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    for _ in range(3):
        await client.consume(subject, group, eager=True, by_key=True)
    await _publish_keyed(client, subject, 25)
    await lab.all_arrived()


@check("O2b", ORDERED, GROUPS, ORDER_IN_GROUP)
async def a_key_stays_with_its_member(lab: Lab) -> None:
    """O2b: While a member has unsettled messages of a key, no other member gets that key."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    members = [await client.consume(subject, group, by_key=True) for _ in range(3)]
    await _publish_keyed(client, subject, 5)
    await lab.all_arrived()
    for key in _KEYS:
        holders = [
            member.reader.name
            for member in members
            if any(delivery.key == key for delivery in member.received)
        ]
        lab.expect(len(holders) == 1, f"unsettled messages of key {key!r} are with {holders}")


@check("O3", ORDER_AFTER_NACK, NACK)
async def order_after_nack(lab: Lab) -> None:
    """O3: A message that is given back comes again before the next one, one at a time."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0)
    sent = await client.publish_in_turn(subject, 5, "key")
    for step in range(6):
        consumer.grant(1)
        delivery = (await consumer.take(step + 1))[step]
        if step == 2:
            await consumer.nack(delivery)
        else:
            await consumer.ack(delivery)
    wanted = [*sent[:3], *sent[2:]]
    lab.expect(consumer.ids == wanted, f"got {consumer.ids}, not {wanted}")


@check("O4", ORDER_OVER_RECONNECT, REDELIVERY, GROUPS)
async def order_over_reconnect(lab: Lab) -> None:
    """O4: What was unsettled when the reader went comes again in its order, before the rest."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group, credit=10)
    sent = await client.publish_in_turn(subject, 15, "key")
    for delivery in (await first.take(10))[:4]:
        await first.ack(delivery)
    await first.close()
    second = await client.consume(subject, group, eager=True)
    await second.take(11)
    lab.expect(second.ids == sent[4:], f"got {second.ids}, not {sent[4:]}")
