"""A: what verdicts do."""

from __future__ import annotations

from collections.abc import MutableMapping

from arc_bus.errors import AlreadySettled, NotSettled
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Draft
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import (
    ACK,
    ATTEMPTS,
    GROUPS,
    NACK,
    NACK_DELAYED,
    REDELIVERY,
    REJECT,
    SURVIVES_CLIENT,
)
from arc_bus.transport import Attempts


@check("A1", ACK, GROUPS, REDELIVERY)
async def acked_is_gone(lab: Lab) -> None:
    """A1: What was acked is never delivered again, to the next reader or the next client."""
    client, other = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 10)
    for delivery in await first.take(10):
        await first.ack(delivery)
    await first.close()
    for reader in (client, other):
        consumer = await reader.consume(subject, group, eager=True)
        await lab.fence(other, subject)
        lab.expect(not {*sent} & {*consumer.ids}, f"acked, and delivered again: {consumer.ids}")
        await consumer.close()


@check("A2", REDELIVERY, GROUPS)
async def unsettled_at_close_comes_back(lab: Lab) -> None:
    """A2: What is unsettled when a feed closes is delivered to the group's next reader."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 5)
    await first.take(5)
    await first.close()
    second = await client.consume(subject, group, eager=True)
    for id in sent:
        await second.redelivery(id, 1)


@check("A3", SURVIVES_CLIENT, GROUPS)
async def unsettled_at_stop_comes_back(lab: Lab) -> None:
    """A3: What is unsettled when its client stops is delivered to another client."""
    reader, publisher = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await reader.consume(subject, group)
    sent = await publisher.publish_in_turn(subject, 5)
    await first.take(5)
    first.lose()
    await reader.transport.stop()
    second = await publisher.consume(subject, group, eager=True)
    for id in sent:
        await second.redelivery(id, 1)


@check("A4", NACK)
async def given_back_comes_again(lab: Lab) -> None:
    """A4: What is given back without a delay is delivered again."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    sent = await client.publish_in_turn(subject, 3)
    for delivery in await consumer.take(3):
        await consumer.nack(delivery)
    for id in sent:
        await consumer.ack(await consumer.redelivery(id))


@check("A4b", NACK_DELAYED)
async def not_before_the_delay(lab: Lab) -> None:
    """A4b: What is given back with a delay comes not before it, not long after, and not twice."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish(subject)
    first = (await consumer.take(1))[0]
    delay = 1.0
    began = lab.now()
    await consumer.nack(first, delay)
    await lab.until(
        lambda: consumer.ids.count(first.id) == 2,
        lambda: "not delivered again",
        within=delay + lab.timings.late,
    )
    waited = lab.now() - began
    await consumer.ack(consumer.received[-1])
    lab.expect(waited >= 0.95 * delay, f"given back for {delay} s, it came after {waited:.3f} s")
    await lab.fence(client, subject)


@check("A4c", NACK_DELAYED)
async def a_delay_holds_up_nobody_else(lab: Lab) -> None:
    """A4c: While one message waits out its delay, others are delivered."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish(subject, Draft(key="one"))
    first = (await consumer.take(1))[0]
    await consumer.nack(first, 2.0)
    second = (await client.publish(subject, Draft(key="two"))).id
    await consumer.ack(await consumer.redelivery(second, 1))
    lab.expect(consumer.ids == [first.id, second], f"got {consumer.ids} before the delay was over")
    await consumer.ack(await consumer.redelivery(first.id))


@check("A4d", NACK, GROUPS)
async def hundreds_given_back(lab: Lab) -> None:
    """A4d: 200 messages, each given back once by one of three readers, are all done in the end."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    members = [await client.consume(subject, group) for _ in range(3)]
    sent = await client.publish_at_once(subject, 200)
    looked_at = [0, 0, 0]
    given_back: set[str | None] = set()
    done: set[str | None] = set()

    def waiting() -> bool:
        return any(len(m.received) > at for m, at in zip(members, looked_at, strict=True))

    while len(done) < len(sent):
        await lab.until(waiting, lambda: f"{len(done)} of {len(sent)} done, and no more came")
        for number, member in enumerate(members):
            for delivery in member.received[looked_at[number] :]:
                looked_at[number] += 1
                if delivery.id in given_back:
                    await member.ack(delivery)
                    done.add(delivery.id)
                else:
                    given_back.add(delivery.id)
                    await member.nack(delivery)


@check("A5", REJECT, GROUPS)
async def rejected_is_gone(lab: Lab) -> None:
    """A5: What was rejected is never delivered again, and its neighbours are untouched."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 3)
    deliveries = await first.take(3)
    await first.reject(deliveries[1])
    await first.ack(deliveries[0])
    await first.close()
    second = await client.consume(subject, group, eager=True)
    await second.redelivery(sent[2], 1)
    await lab.fence(client, subject)
    lab.expect(sent[1] not in second.ids, f"rejected, and delivered again: {sent[1]!r}")


@check("A6", ACK, GROUPS, REDELIVERY)
async def an_ack_settles_one(lab: Lab) -> None:
    """A6: Acking one message settles neither those before it nor those after it."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 6)
    deliveries = await first.take(6)
    await first.ack(deliveries[4])
    await first.ack(deliveries[1])
    await first.close()
    second = await client.consume(subject, group, eager=True)
    for number in (0, 2, 3, 5):
        await second.redelivery(sent[number], 1)
    await lab.fence(client, subject)


@check("A7", ACK, NACK)
async def settled_twice(lab: Lab) -> None:
    """A7: Repeating a verdict does nothing; a different second one raises AlreadySettled."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish(subject)
    delivery = (await consumer.take(1))[0]
    await consumer.ack(delivery)
    await consumer.ack(delivery)
    try:
        await consumer.nack(delivery)
    except AlreadySettled:
        pass
    else:
        raise NotConforming("nack() after ack() did not raise AlreadySettled")
    await lab.fence(client, subject)


@check("A7b", ACK)
async def settled_after_close(lab: Lab) -> None:
    """A7b: A verdict after close() raises NotSettled: it cannot reach the broker any more."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish(subject)
    delivery = (await consumer.take(1))[0]
    await consumer.close()
    try:
        await consumer.feed.ack(delivery)
    except NotSettled:
        return
    raise NotConforming("ack() after close() did not raise NotSettled")


@check("A10", ATTEMPTS, NACK)
async def attempts_count_up(lab: Lab) -> None:
    """A10: `attempt` is 1 at first and grows with every redelivery, by one where it is exact."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    id = (await client.publish(subject)).id
    attempts: list[int] = []
    for number in (1, 2, 3, 4):
        delivery = await consumer.redelivery(id, number)
        attempts.append(delivery.attempt)
        if number < 4:
            await consumer.nack(delivery)
        else:
            await consumer.ack(delivery)
    exact = lab.capabilities.attempts is Attempts.EXACT
    right = attempts == [1, 2, 3, 4] if exact else attempts[0] == 1 and attempts == sorted(attempts)
    lab.expect(right and attempts[-1] > 1, f"attempts were {attempts}")


@check("A11", NACK)
async def a_retry_is_pristine(lab: Lab) -> None:
    """A11: What a reader does to a delivery is not in its redelivery."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    sent = await client.publish(subject, Draft(body=b"mine", headers={"colour": "red"}))
    first = (await consumer.take(1))[0]
    first.body = b"changed"
    if isinstance(first.headers, MutableMapping):
        first.headers["colour"] = "blue"
    first.headers = {"colour": "green"}
    await consumer.nack(first)
    second = await consumer.redelivery(sent.id)
    await consumer.ack(second)
    seen = (second.body, second.headers.get("colour"))
    lab.expect(seen == (b"mine", "red"), f"the redelivery has {seen}")


@check("A12", ACK, SURVIVES_CLIENT, GROUPS)
async def stop_flushes_acks(lab: Lab) -> None:
    """A12: Acks that were given reach the broker although the client closes at once."""
    reader, publisher = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await reader.consume(subject, group)
    sent = await publisher.publish_in_turn(subject, 20)
    for delivery in await first.take(20):
        await first.ack(delivery)
    await reader.stop()
    second = await publisher.consume(subject, group, eager=True)
    await lab.fence(publisher, subject)
    lab.expect(not {*sent} & {*second.ids}, f"acked, and delivered again: {second.ids}")


@check("A13", ~REDELIVERY)
async def at_most_once(lab: Lab) -> None:
    """A13: At most once means that ack() changes nothing and nothing ever comes again."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    await client.publish_in_turn(subject, 5)
    for delivery in (await first.take(5))[:2]:
        await first.ack(delivery)
        await first.ack(delivery)
    await first.close()
    second = await client.consume(subject, group)
    await lab.fence(client, subject)
    lab.expect(len(second.ids) == 1, f"the next reader got {second.ids}, not only what is new")
