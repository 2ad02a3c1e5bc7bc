"""W: patterns."""

from __future__ import annotations

from arc_bus.routing import is_topic
from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import GROUPS, TAIL, TOKEN


@check("W1", TOKEN)
async def a_star_is_one_token(lab: Lab) -> None:
    """W1: `*` matches every destination of its family, and a delivery names the concrete one."""
    client = await lab.client()
    pattern, family = lab.harness.family(4)
    for subject in family:
        await client.publish(subject)
    consumer = await client.consume(pattern, eager=True)
    for subject in family:
        await client.publish_in_turn(subject, 2)
    await lab.all_arrived()
    seen = {delivery.subject for delivery in consumer.received}
    lab.expect(seen == {*family}, f"deliveries name {sorted(seen)}, not {family}")


@check("W2", TAIL)
async def a_tail_is_one_token_or_more(lab: Lab) -> None:
    """W2: `>` matches one token and several, but not none."""
    client = await lab.client()
    stem = lab.subject("stem")
    consumer = await client.consume(f"{stem}.>", eager=True)
    for subject in (f"{stem}.a", f"{stem}.a.b", f"{stem}.a.b.c"):
        await client.publish_in_turn(subject, 2)
    await client.publish(stem)
    await lab.fence(client, f"{stem}.last")
    lab.expect(len(consumer.ids) == 7, f"got {len(consumer.ids)}, not 7")


@check("W2b", TAIL, TOKEN)
async def star_and_tail(lab: Lab) -> None:
    """W2b: `*` may stand in the middle, and beside `>`."""
    client = await lab.client()
    stem = lab.subject("stem")
    middle = await client.consume(f"{stem}.*.c", eager=True)
    both = await client.consume(f"{stem}.*.c.>", eager=True)
    for subject in ("a.c", "b.c", "a.d", "a.b.c", "a.c.e", "b.c.e.f"):
        await client.publish(f"{stem}.{subject}")
    await lab.fence(client, f"{stem}.z.c", f"{stem}.z.c.z")
    counts = (len(middle.ids), len(both.ids))
    lab.expect(counts == (3, 3), f"the patterns got {counts}, not (3, 3)")


@check("W3", TOKEN)
async def what_does_not_match(lab: Lab) -> None:
    """W3: `*` matches nothing outside its family: no more tokens, no fewer, no other name."""
    client = await lab.client()
    pattern, family = lab.harness.family(2)
    consumer = await client.consume(pattern, eager=True)
    outside = [lab.subject()]
    if not is_topic(pattern):
        stem = pattern.removesuffix(".*")
        outside += [f"{family[0]}.deeper", stem, f"{stem}x.s0"]
    for subject in (*outside, *family):
        await client.publish(subject)
    await lab.fence(client, *family)
    lab.expect(len(consumer.ids) == 4, f"got {len(consumer.ids)} of 4: {consumer.received}")


@check("W4", TOKEN)
async def overlapping_patterns(lab: Lab) -> None:
    """W4: Overlapping subscriptions get a copy each, and one copy each."""
    client = await lab.client()
    pattern, family = lab.harness.family(2)
    for subject in family:
        await client.publish(subject)
    wide = await client.consume(pattern, eager=True)
    narrow = await client.consume(family[0], eager=True)
    for subject in family:
        await client.publish_in_turn(subject, 5)
    await lab.fence(client, *family)
    counts = (len(wide.ids), len(narrow.ids))
    lab.expect(counts == (12, 6), f"wide and narrow got {counts}, not (12, 6)")


@check("W5", TOKEN)
async def a_subject_that_is_new(lab: Lab) -> None:
    """W5: A subject first used after subscribe() is found within the discovery lag."""
    client = await lab.client()
    pattern, family = lab.harness.family(3)
    consumer = await client.consume(pattern, eager=True)
    sent = [(await client.publish(subject)).id for subject in family]
    await lab.until(
        lambda: {*sent} <= {*consumer.ids},
        lambda: f"got {consumer.ids} of {sent}",
        within=lab.capabilities.discovery_lag + lab.timings.arrive,
    )


@check("W8", TOKEN, GROUPS)
async def a_group_on_a_pattern(lab: Lab) -> None:
    """W8: Members of a group on a pattern share its messages, each to one of them."""
    client, other = await lab.client(), await lab.client()
    pattern, family = lab.harness.family(3)
    for subject in family:
        await client.publish(subject)
    group = lab.group()
    members = [await c.consume(pattern, group, eager=True) for c in (client, other)]
    for subject in family:
        await client.publish_at_once(subject, 30)
    await lab.fence(client, *family)
    total = sum(len(member.ids) for member in members)
    lab.expect(total == 93, f"{total} deliveries of 93 messages")
