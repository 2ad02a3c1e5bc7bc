"""F: no more than was asked for."""

from __future__ import annotations

from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import BOUNDED, GROUPS, REDELIVERY


@check("F1", BOUNDED)
async def never_above_the_credit(lab: Lab) -> None:
    """F1: A reader gets as many deliveries as it granted, and not one more."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=5)
    await client.publish_at_once(subject, 30)
    for total, more in ((5, 3), (8, 1), (9, 0)):
        await consumer.take(total)
        await lab.quiet()
        lab.expect(len(consumer.ids) == total, f"granted {total}, got {len(consumer.ids)}")
        consumer.grant(more)


@check("F1b", BOUNDED)
async def nothing_without_credit(lab: Lab) -> None:
    """F1b: A feed that was granted nothing delivers nothing, and all of it once it is."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0, eager=True)
    await client.publish_at_once(subject, 20)
    await lab.quiet()
    lab.expect(not consumer.ids, f"granted nothing, got {len(consumer.ids)}")
    consumer.grant(20)
    await lab.all_arrived()


@check("F2", REDELIVERY)
async def a_slow_reader_loses_nothing(lab: Lab) -> None:
    """F2: A reader much slower than its publisher gets everything in the end."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=10, eager=True)
    await client.publish_at_once(subject, 500)
    for done in range(10, 500, 10):
        await consumer.take(done)
        consumer.grant(10)
    await lab.all_arrived()


@check("F3", BOUNDED, GROUPS)
async def the_rest_is_for_others(lab: Lab) -> None:
    """F3: What a stuck member may not hold goes to others, the rest when it leaves."""
    first, second = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    stuck = await first.consume(subject, group, credit=3, prefetch=3)
    sent = await first.publish_in_turn(subject, 60)
    await stuck.take(3)
    other = await second.consume(subject, group, eager=True, prefetch=20)
    # Held: three that were delivered, and as many that may have been fetched ahead of the credit.
    await other.take(60 - 3 - 3)
    await stuck.close()
    for id in sent:
        await other.redelivery(id, 1)


@check("F4", BOUNDED)
async def one_at_a_time(lab: Lab) -> None:
    """F4: With one credit at a time messages come one by one, and none is forgotten."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0, eager=True)
    await client.publish_at_once(subject, 20)
    for number in range(1, 21):
        consumer.grant(1)
        await consumer.take(number)
    await lab.all_arrived()


@check("F5", BOUNDED)
async def pending_is_true(lab: Lab) -> None:
    """F5: pending() says how many messages wait for the group, or that it cannot tell."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=4)
    await client.publish_at_once(subject, 10)
    await consumer.take(4)
    waiting = await consumer.feed.pending()
    lab.expect(waiting in (None, 6), f"of 10 messages 4 were delivered, pending() says {waiting}")


@check("F6", ~BOUNDED)
async def credit_is_ignored(lab: Lab) -> None:
    """F6: Where prefetch is unbounded, granting is harmless and needed for nothing."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, credit=0, eager=True)
    await client.publish_at_once(subject, 20)
    consumer.grant(5)
    await client.publish_at_once(subject, 20)
    await lab.all_arrived()
