"""D: from when, from where and until when messages are delivered."""

from __future__ import annotations

from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import GROUPS, REDELIVERY, START_EARLIEST, START_NEW, SURVIVES_CLIENT
from arc_bus.transport import StartAt


@check("D1")
async def active_on_return(lab: Lab) -> None:
    """D1: When subscribe() has returned, a message published by another client is delivered."""
    reader, publisher = await lab.client(), await lab.client()
    for _ in range(10):
        subject = lab.subject()
        await reader.consume(subject, eager=True)
        await publisher.publish(subject)
    await lab.all_arrived()


@check("D1b", GROUPS)
async def group_active_on_return(lab: Lab) -> None:
    """D1b: The same with a group."""
    reader, publisher = await lab.client(), await lab.client()
    for _ in range(10):
        subject = lab.subject()
        await reader.consume(subject, lab.group(), eager=True)
        await publisher.publish(subject)
    await lab.all_arrived()


@check("D2", START_NEW, GROUPS)
async def new_sees_nothing_old(lab: Lab) -> None:
    """D2: A group that starts at NEW gets nothing that was published before."""
    client = await lab.client()
    subject = lab.subject()
    await client.publish_in_turn(subject, 5)
    consumer = await client.consume(subject, lab.group(), eager=True)
    sent = await client.publish_in_turn(subject, 3)
    await lab.fence(client, subject)
    lab.expect(consumer.ids[:3] == sent, f"got {consumer.ids}; published since: {sent}")


@check("D3", START_EARLIEST, GROUPS)
async def earliest_sees_all(lab: Lab) -> None:
    """D3: A group that starts at EARLIEST gets what was published before, and what follows."""
    client = await lab.client()
    subject = lab.subject()
    old = await client.publish_in_turn(subject, 5)
    consumer = await client.consume(subject, lab.group(), start=StartAt.EARLIEST, eager=True)
    new = await client.publish_in_turn(subject, 5)
    await lab.all_arrived()
    lab.expect(set(consumer.ids) == {*old, *new}, f"got {consumer.ids}, not {old} and {new}")


@check("D3b", START_EARLIEST, GROUPS, REDELIVERY)
async def earliest_only_once(lab: Lab) -> None:
    """D3b: EARLIEST is for a new group only: one that exists goes on where it stopped."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    await client.publish_in_turn(subject, 5)
    first = await client.consume(subject, group, start=StartAt.EARLIEST)
    for delivery in await first.take(5):
        await first.ack(delivery)
    await first.close()
    second = await client.consume(subject, group, start=StartAt.EARLIEST, eager=True)
    await lab.fence(client, subject)
    lab.expect(len(second.ids) == 1, f"after 5 acked messages and 1 new: {second.ids}")


@check("D4", REDELIVERY, GROUPS)
async def group_resumes(lab: Lab) -> None:
    """D4: A group goes on where it stopped, with what came while nobody read for it."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    await client.publish_in_turn(subject, 5)
    for delivery in await first.take(5):
        await first.ack(delivery)
    await first.close()
    meanwhile = await client.publish_in_turn(subject, 5)
    second = await client.consume(subject, group, eager=True)
    await lab.fence(client, subject)
    lab.expect(second.ids[:-1] == meanwhile, f"got {second.ids[:-1]}, not {meanwhile}")


@check("D4b", SURVIVES_CLIENT, GROUPS)
async def group_outlives_its_client(lab: Lab) -> None:
    """D4b: A group outlives its last client, and what is published meanwhile waits for it."""
    reader, publisher = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await reader.consume(subject, group)
    await publisher.publish_in_turn(subject, 5)
    for delivery in (await first.take(5))[:3]:
        await first.ack(delivery)
    await reader.stop()
    await publisher.publish_in_turn(subject, 5)
    again = await lab.client()
    await again.consume(subject, group, eager=True)
    await lab.all_arrived()


@check("D4c", ~REDELIVERY)
async def nothing_is_kept(lab: Lab) -> None:
    """D4c: At most once means that what is published while nobody reads is gone."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    await first.close()
    missed = await client.publish_in_turn(subject, 5)
    second = await client.consume(subject, group)
    await lab.fence(client, subject)
    lab.expect(not {*missed} & {*second.ids}, f"got {second.ids}; published to nobody: {missed}")


@check("D5")
async def stopping_one_leaves_the_others(lab: Lab) -> None:
    """D5: Stopping one subscription ends its deliveries, and no other's."""
    client = await lab.client()
    subject = lab.subject()
    first = await client.consume(subject, eager=True)
    second = await client.consume(subject, eager=True)
    await client.publish_at_once(subject, 20)
    await lab.all_arrived()
    await first.stop()
    await client.publish_at_once(subject, 20)
    await lab.fence(client, subject)
    await first.close()
    await client.publish_at_once(subject, 20)
    await lab.fence(client, subject)
    lab.expect(len(second.ids) == 62, f"the other reader got {len(second.ids)} of 62")


@check("D5b")
async def nothing_after_stop_under_load(lab: Lab) -> None:
    """D5b: Nothing is delivered after stop() has returned, while publishing goes on."""
    reader, publisher = await lab.client(), await lab.client()
    subject = lab.subject()
    for _ in range(5):
        consumer = await reader.consume(subject)
        await publisher.publish_at_once(subject, 20)
        await consumer.stop()
        await publisher.publish_at_once(subject, 20)
        await consumer.close()
    await lab.quiet()


@check("D6")
async def no_duplicates(lab: Lab) -> None:
    """D6: A thousand messages without any fault arrive a thousand times."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    await client.publish_at_once(subject, 1000)
    await lab.fence(client, subject)
    lab.expect(len(consumer.ids) == 1001, f"{len(consumer.ids)} deliveries of 1001 messages")


@check("D8")
async def many_subscriptions_on_one_client(lab: Lab) -> None:
    """D8: Fifty subscriptions on one client each get their own messages."""
    client = await lab.client()
    subjects = [lab.subject(f"m{number}") for number in range(50)]
    for subject in subjects:
        await client.consume(subject, eager=True)
    for subject in subjects:
        await client.publish(subject)
    await lab.all_arrived()
