"""X: stopping and starting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from arc_bus.errors import ArcBusError, BusStopped
from arc_bus.policy import Subscription
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Draft
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import ACK, DEADLINE, GROUPS, REDELIVERY
from arc_bus.transport import Outgoing, Transport


@check("X1")
async def stopping_twice(lab: Lab) -> None:
    """X1: stop() and close() may be called again, and at the same time."""
    client = await lab.client()
    consumer = await client.consume(lab.subject(), eager=True)
    await asyncio.gather(consumer.stop(), consumer.stop())
    await consumer.stop()
    await asyncio.gather(consumer.close(), consumer.close())
    await consumer.close()
    await consumer.stop()
    await asyncio.gather(client.transport.stop(), client.transport.stop())
    await client.transport.stop()


async def _must_be_stopped(lab: Lab, transport: Transport, when: str) -> None:
    subject = lab.subject()
    outgoing = Outgoing(subject, b"", {}, lab.new_id())
    subscription = Subscription(pattern=subject, options=lab.harness.options())
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "publish": lambda: transport.publish(outgoing),
        "subscribe": lambda: transport.subscribe(subscription, lambda _batch: None),
        "flush": transport.flush,
    }
    for name, call in calls.items():
        try:
            await call()
        except BusStopped:
            continue
        raise NotConforming(f"{name}() {when} did not raise BusStopped")


@check("X2")
async def nothing_works_after_stop(lab: Lab) -> None:
    """X2: Whatever is asked of a transport after stop() raises BusStopped."""
    client = await lab.client()
    await client.stop()
    await _must_be_stopped(lab, client.transport, "after stop()")


@check("X2b")
async def nothing_works_before_start(lab: Lab) -> None:
    """X2b: Whatever is asked of a transport before start() raises BusStopped."""
    transport = lab.connect()
    try:
        await _must_be_stopped(lab, transport, "before start()")
    finally:
        await transport.stop()


@check("X3")
async def stop_waits_for_nobody(lab: Lab) -> None:
    """X3: stop() ends although deliveries are held, credit is used up, and publishing goes on."""
    reader, publisher = await lab.client(), await lab.client()
    subject = lab.subject()
    holder = await reader.consume(subject, lab.group(), credit=3)
    await publisher.publish_at_once(subject, 10)
    await holder.take(3)

    async def publish_on() -> None:
        while True:
            try:
                await publisher.publish(subject)
            except ArcBusError:
                return
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish_on())
    async with asyncio.timeout(lab.timings.arrive):
        await reader.stop()
        await publisher.stop()
        await publishing


@check("X4", ACK, GROUPS, REDELIVERY)
async def verdicts_work_after_intake_stopped(lab: Lab) -> None:
    """X4: After a feed's stop() what it delivered can still be settled, and publishing works."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 4)
    deliveries = await first.take(4)
    await first.stop()
    for delivery in deliveries:
        await first.ack(delivery)
        await client.publish(subject, Draft(body=b"while draining"))
    await first.close()
    second = await client.consume(subject, group, eager=True)
    await second.take(4)
    await lab.fence(client, subject)
    lab.expect(not {*sent} & {*second.ids}, f"acked while draining, delivered again: {second.ids}")


@check("X7", DEADLINE, GROUPS)
async def what_was_held_goes_back_at_once(lab: Lab) -> None:
    """X7: What a closing feed holds goes to others long before its ack deadline."""
    client, other = await lab.client(), await lab.client()
    subject, group = lab.subject(), lab.group()
    first = await client.consume(subject, group)
    sent = await client.publish_at_once(subject, 20)
    await first.take(20)
    await first.close()
    second = await other.consume(subject, group, eager=True)
    deadline = lab.capabilities.ack_deadline or 0.0
    await lab.until(
        lambda: {*sent} <= {*second.ids},
        lambda: f"{len({*second.ids})} of 20 held messages came back",
        within=deadline / 2,
    )


@check("X8")
async def a_new_one_works(lab: Lab) -> None:
    """X8: After stop() a new transport of the same kind works as the first one did."""
    for _ in range(3):
        client = await lab.client()
        subject = lab.subject()
        consumer = await client.consume(subject, eager=True)
        await client.publish_in_turn(subject, 3)
        await consumer.take(3)
        await client.stop()


@check("X9")
async def nothing_is_left_running(lab: Lab) -> None:
    """X9: After stop() no task and no thread of the transport is left."""
    await _use_and_stop(lab)
    # Measured from the second use on: a client library may keep one pool for the whole process.
    tasks, threads = asyncio.all_tasks(), {*threading.enumerate()}
    await _use_and_stop(lab)
    await lab.until(
        lambda: asyncio.all_tasks() <= tasks and {*threading.enumerate()} <= threads,
        lambda: (
            f"left after stop(): {asyncio.all_tasks() - tasks or ''}"
            f" {({*threading.enumerate()} - threads) or ''}"
        ),
    )


async def _use_and_stop(lab: Lab) -> None:
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    await client.consume(lab.subject(), lab.group())
    await client.publish_at_once(subject, 20)
    await lab.all_arrived()
    await client.stop()
    # A turn of the loop for what has been cancelled to end.
    await asyncio.sleep(0)


@check("X10")
async def one_client_is_not_the_other(lab: Lab) -> None:
    """X10: Stopping one client leaves the others of the process alone."""
    first, second = await lab.client(), await lab.client()
    subject = lab.subject()
    consumer = await second.consume(subject, eager=True)
    await first.publish_in_turn(subject, 3)
    await first.stop()
    await second.publish_in_turn(subject, 3)
    await consumer.take(6)
    well = await second.transport.health()
    lab.expect(well is None, f"health() of the other says {well!r}")


@check("X11")
async def health_tells(lab: Lab) -> None:
    """X11: health() of a running transport is None."""
    client = await lab.client()
    for _ in range(3):
        well = await client.transport.health()
        lab.expect(well is None, f"health() says {well!r}")


@check("E3")
async def cancelling_is_clean(lab: Lab) -> None:
    """E3: A cancelled publish() raises CancelledError and nothing else, and harms no later one."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    for _ in range(20):
        publishing = asyncio.create_task(client.publish(subject))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        if not publishing.cancelled():
            # It had ended before: then it must have ended well.
            publishing.result()
    await client.publish_in_turn(subject, 5)
    await lab.all_arrived()
