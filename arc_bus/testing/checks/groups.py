"""G: who gets which messages."""

from __future__ import annotations

from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import ACK, BOUNDED, GROUPS, REDELIVERY


@check("G1", GROUPS)
async def each_group_gets_all(lab: Lab) -> None:
    """G1: Every group gets every message."""
    client = await lab.client()
    subject = lab.subject()
    for _ in range(3):
        await client.consume(subject, lab.group(), eager=True)
    await client.publish_at_once(subject, 50)
    await lab.all_arrived()


@check("G2", GROUPS)
async def one_member_gets_each(lab: Lab) -> None:
    """G2: Within a group each message goes to exactly one member, on whatever client it is."""
    first, second = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    members = [
        await client.consume(subject, group, eager=True) for client in (first, second, second)
    ]
    await first.publish_at_once(subject, 300)
    await lab.fence(first, subject)
    total = sum(len(member.ids) for member in members)
    lab.expect(total == 301, f"{total} deliveries of 301 messages to three members")


@check("G3", GROUPS, BOUNDED)
async def members_share_by_credit(lab: Lab) -> None:
    """G3: Members share the work by their credit: each gets its fill, and none gets more."""
    first, second = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    credits = (5, 10, 15)
    members = [
        await client.consume(subject, group, credit=credit, prefetch=credit)
        for client, credit in zip((first, second, second), credits, strict=True)
    ]
    # Three times what they may hold: a transport may fetch `prefetch` ahead of the credit.
    await first.publish_in_turn(subject, 90)
    for member, credit in zip(members, credits, strict=True):
        await member.take(credit)


@check("G3b", GROUPS)
async def every_member_works(lab: Lab) -> None:
    """G3b: Of three members that keep up, each gets some of 300 messages."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    members = [await client.consume(subject, group, credit=20, eager=True) for _ in range(3)]
    for _ in range(15):
        await client.publish_at_once(subject, 20)
        for member in members:
            member.grant(20)
    await lab.all_arrived()
    shares = [len(member.ids) for member in members]
    lab.expect(min(shares) > 0, f"300 messages went {shares} to three members")


@check("G4", GROUPS, REDELIVERY)
async def a_leaver_leaves_its_messages(lab: Lab) -> None:
    """G4: What a member that leaves had unsettled goes to the others."""
    first, second = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    leaver = await first.consume(subject, group, credit=10)
    await first.publish_at_once(subject, 10)
    held = {delivery.id for delivery in await leaver.take(10)}
    stayer = await second.consume(subject, group, eager=True)
    await leaver.close()
    for id in held:
        await stayer.redelivery(id, 1)


@check("G4b", GROUPS)
async def the_others_go_on(lab: Lab) -> None:
    """G4b: When a member leaves, what is published from then on goes to the others."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    members = [await client.consume(subject, group, eager=True) for _ in range(3)]
    await client.publish_at_once(subject, 30)
    await lab.all_arrived()
    await members[0].close()
    await client.publish_at_once(subject, 30)
    await members[1].close()
    await client.publish_at_once(subject, 30)
    await lab.all_arrived()


@check("G5")
async def without_a_group_each_gets_all(lab: Lab) -> None:
    """G5: Subscribers without a group get all messages each, on whatever client they are."""
    first, second = await lab.client(), await lab.client()
    subject = lab.subject()
    for client in (first, second, second):
        await client.consume(subject, eager=True)
    await first.publish_at_once(subject, 50)
    await lab.all_arrived()


@check("G6", GROUPS)
async def groups_and_single_readers(lab: Lab) -> None:
    """G6: A group and a reader without one do not take messages from each other."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    await client.consume(subject, group, eager=True)
    await client.consume(subject, eager=True)
    await client.consume(subject, group, eager=True)
    await client.publish_at_once(subject, 50)
    await lab.all_arrived()


@check("G7", GROUPS, REDELIVERY, ACK)
async def groups_settle_for_themselves(lab: Lab) -> None:
    """G7: A verdict of one group settles nothing for another."""
    client = await lab.client()
    subject, slow = lab.subject(), lab.group()
    await client.consume(subject, lab.group(), eager=True)
    holder = await client.consume(subject, slow)
    sent = await client.publish_in_turn(subject, 10)
    await holder.take(10)
    await lab.all_arrived()
    await holder.close()
    again = await client.consume(subject, slow, eager=True)
    for id in sent:
        await again.redelivery(id, 1)
