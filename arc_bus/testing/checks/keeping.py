"""K: what is kept to be browsed, as dead letters are."""

from __future__ import annotations

from arc_bus.testing.check import check
from arc_bus.testing.client import Client, Draft
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import BROWSE, GROUPS
from arc_bus.transport import Delivery


async def _browse(client: Client, pattern: str) -> list[Delivery]:
    return [delivery async for delivery in client.transport.browse(pattern)]


@check("K1", BROWSE)
async def retained_can_be_browsed(lab: Lab) -> None:
    """K1: What is published to a retained subject is found there, oldest first, unchanged."""
    client = await lab.client()
    subject = lab.subject()
    await client.transport.retain(subject)
    drafts = [Draft(body=b"dead %d" % n, headers={"number": str(n)}) for n in range(5)]
    sent = [await client.publish(subject, draft) for draft in drafts]
    for _ in range(2):
        kept = await _browse(client, subject)
        found = [(d.id, d.body, d.headers.get("number"), d.subject) for d in kept]
        wanted = [(o.id, o.body, o.headers["number"], subject) for o in sent]
        lab.expect(found == wanted, f"browsing found {found}, not {wanted}")


@check("K2", BROWSE)
async def discarding_one(lab: Lab) -> None:
    """K2: discard() removes that one message for good, and a second time does nothing."""
    client, other = await lab.client(), await lab.client()
    subject = lab.subject()
    await client.transport.retain(subject)
    sent = await client.publish_in_turn(subject, 4)
    kept = await _browse(client, subject)
    await client.transport.discard(kept[1])
    await client.transport.discard(kept[1])
    left = [delivery.id for delivery in await _browse(other, subject)]
    wanted = [sent[0], sent[2], sent[3]]
    lab.expect(left == wanted, f"after one was discarded {left} are left, not {wanted}")


@check("K3", BROWSE, GROUPS)
async def browsing_settles_nothing(lab: Lab) -> None:
    """K3: Browsing and discarding take no message from a group, nor its acks from what is kept."""
    client = await lab.client()
    subject = lab.subject()
    await client.transport.retain(subject)
    reader = await client.consume(subject, lab.group(), eager=True)
    sent = await client.publish_in_turn(subject, 5)
    await lab.all_arrived()
    kept = await _browse(client, subject)
    lab.expect(len(kept) == 5, f"of 5 retained and acked messages {len(kept)} are kept")
    for delivery in kept:
        await client.transport.discard(delivery)
    await client.publish(subject)
    await lab.all_arrived()
    lab.expect(len(reader.ids) == len(sent) + 1, f"the group got {len(reader.ids)} of 6")


@check("K4", BROWSE)
async def browsing_the_empty(lab: Lab) -> None:
    """K4: Browsing where nothing is kept ends at once and finds nothing; it does not wait."""
    client = await lab.client()
    subject = lab.subject()
    await client.transport.retain(subject)
    lab.expect(await _browse(client, subject) == [], "an empty subject is not empty")
    await client.publish_in_turn(subject, 2)
    for delivery in await _browse(client, subject):
        await client.transport.discard(delivery)
    lab.expect(await _browse(client, subject) == [], "an emptied subject is not empty")
    await client.publish(subject)
    found = len(await _browse(client, subject))
    lab.expect(found == 1, f"one message after emptying, browsing found {found}")


@check("K5", BROWSE)
async def what_is_kept_outlives_its_publisher(lab: Lab) -> None:
    """K5: What is kept stays when its publisher stops, and another client finds it."""
    publisher, other = await lab.client(), await lab.client()
    subject = lab.subject()
    await publisher.transport.retain(subject)
    sent = await publisher.publish_in_turn(subject, 3)
    await publisher.stop()
    await other.transport.retain(subject)
    found = [delivery.id for delivery in await _browse(other, subject)]
    lab.expect(found == sent, f"another client found {found}, not {sent}")
