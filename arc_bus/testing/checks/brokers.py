"""Faults of the broker: it is frozen, killed, away, and back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from arc_bus.errors import ArcBusError, ConnectFailed, RequestError, TransportError
from arc_bus.notice import NoticeKind
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Client, Draft
from arc_bus.testing.harness import Broker, FaultHarness
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import (
    ACK,
    GROUPS,
    REDELIVERY,
    REQUEST_REPLY,
    SERVER_RECEIVED,
    SURVIVES_BROKER,
)
from arc_bus.transport import WhileDisconnected


def _broker(lab: Lab) -> Broker:
    assert isinstance(lab.harness, FaultHarness)
    return lab.harness.broker


async def _freeze(lab: Lab) -> None:
    lab.history.fault()
    await asyncio.to_thread(_broker(lab).pause)


async def _thaw(lab: Lab) -> None:
    await asyncio.to_thread(_broker(lab).resume)
    lab.history.fault()


async def _kill(lab: Lab, round: int = 1) -> None:
    """Kill the broker, and wait until the transports have noticed, for the `round`th time."""
    lab.history.fault()
    await asyncio.to_thread(_broker(lab).kill)
    # What is confirmed from here on was not confirmed by it.
    lab.history.fault()
    await _reported(lab, NoticeKind.LOST, round * len(lab.clients))


async def _revive(lab: Lab, round: int = 1) -> None:
    """Start the broker, and wait until every transport has connected again."""
    await asyncio.to_thread(_broker(lab).start)
    await _reported(lab, NoticeKind.RESTORED, round * len(lab.clients))


async def _reported(lab: Lab, kind: NoticeKind, times: int) -> None:
    notices = lab.harness.notices
    await lab.until(
        lambda: sum(notice.kind is kind for notice in notices) >= times,
        lambda: f"{kind.value!r} was not reported {times} times: {[n.kind.value for n in notices]}",
        within=lab.timings.recover,
    )


async def _publish_for_sure(lab: Lab, client: Client, subject: str) -> str:
    """Publish until the server has one; return its id."""
    async with asyncio.timeout(lab.timings.recover):
        while True:
            with suppress(TransportError):
                sent = await client.publish(subject)
                await client.transport.flush()
                return sent.id
            await asyncio.sleep(0.1)


@check("P4", SERVER_RECEIVED)
async def a_frozen_broker_confirms_nothing(lab: Lab) -> None:
    """P4: While the broker is frozen publish() confirms nothing; what it confirms later arrives."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, lab.group(), eager=True)
    await client.publish_in_turn(subject, 3)
    await _freeze(lab)
    publishing = [asyncio.create_task(client.publish(subject)) for _ in range(5)]
    await asyncio.wait(publishing, timeout=1.0)
    early = [task for task in publishing if task.done() and not task.exception()]
    await _thaw(lab)
    lab.expect(not early, f"{len(early)} publishes were confirmed by a frozen broker")
    outcomes = await asyncio.gather(*publishing, return_exceptions=True)
    odd = [each for each in outcomes if isinstance(each, Exception)]
    lab.expect(all(isinstance(each, TransportError) for each in odd), f"publishing raised {odd}")
    await _publish_for_sure(lab, client, subject)
    await lab.all_arrived()


@check("P7")
async def publishing_while_disconnected(lab: Lab) -> None:
    """P7: Without a connection publish() does what is declared: raise, buffer, or wait."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), eager=True)
    await client.publish(subject)
    await lab.all_arrived()
    await _kill(lab)
    declared = lab.capabilities.while_disconnected
    publishing = asyncio.create_task(client.publish(subject, Draft(id=lab.new_id())))
    await asyncio.wait([publishing], timeout=1.0)
    raised = publishing.done() and isinstance(publishing.exception(), TransportError)
    returned = publishing.done() and publishing.exception() is None
    seen = "raised" if raised else "returned" if returned else "waits"
    await _revive(lab)
    wanted = {
        WhileDisconnected.RAISE: "raised",
        WhileDisconnected.BUFFER: "returned",
        WhileDisconnected.WAIT: "waits",
    }[declared]
    lab.expect(seen == wanted, f"declared is {declared.value!r}, and publish() {seen}")
    if seen != "raised":
        sent = await publishing
        await consumer.redelivery(sent.id, 1)


@check("R1", SURVIVES_BROKER, GROUPS)
async def a_restart_loses_nothing(lab: Lab) -> None:
    """R1: What was confirmed before the broker was killed is delivered after it is back."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group(), credit=0, eager=True)
    await client.publish_in_turn(subject, 30)
    await _kill(lab)
    await _revive(lab)
    consumer.grant(1000)
    await _publish_for_sure(lab, client, subject)
    await lab.all_arrived()


@check("R2")
async def frozen_and_thawed(lab: Lab) -> None:
    """R2: After the broker was frozen for a while, publishing and every subscription go on."""
    client, other = await lab.client(), await lab.client()
    subjects = [lab.subject() for _ in range(3)]
    readers = [await other.consume(subject, lab.group(), eager=True) for subject in subjects]
    await _freeze(lab)
    await asyncio.sleep(1.0)
    await _thaw(lab)
    for reader, subject in zip(readers, subjects, strict=True):
        await reader.redelivery(await _publish_for_sure(lab, client, subject), 1)


@check("R3")
async def every_subscription_resumes(lab: Lab) -> None:
    """R3: When the broker is back every subscription is active again, with a group and without."""
    client, other = await lab.client(), await lab.client()
    plain = [lab.subject() for _ in range(5)]
    shared = [lab.subject() for _ in range(5)]
    readers = [await other.consume(subject, eager=True) for subject in plain]
    readers += [await other.consume(subject, lab.group(), eager=True) for subject in shared]
    await _kill(lab)
    await _revive(lab)
    for reader, subject in zip(readers, (*plain, *shared), strict=True):
        await reader.redelivery(await _publish_for_sure(lab, client, subject), 1)


@check("R3b")
async def three_restarts(lab: Lab) -> None:
    """R3b: The third restart is survived as the first was."""
    client = await lab.client()
    subject = lab.subject()
    reader = await client.consume(subject, lab.group(), eager=True)
    for round in range(1, 4):
        await _kill(lab, round)
        await _revive(lab, round)
        await reader.redelivery(await _publish_for_sure(lab, client, subject), 1)


@check("R5", SURVIVES_BROKER, GROUPS, REDELIVERY)
async def unsettled_over_a_restart(lab: Lab) -> None:
    """R5: What was unsettled when the broker was killed comes again, if only to the next reader.

    To the reader that holds it still, a transport may or may not deliver it a second time.
    """
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    consumer = await client.consume(subject, group)
    sent = await client.publish_in_turn(subject, 5)
    await consumer.take(5)
    await _kill(lab)
    await _revive(lab)
    await consumer.close()
    heir = await (await lab.client()).consume(subject, group)
    await lab.until(
        lambda: set(sent) <= set(heir.ids),
        lambda: f"held over a restart and a close, and not delivered again: {heir.ids}",
        within=(lab.capabilities.ack_deadline or 0.0) + lab.timings.recover,
    )


@check("R6")
async def nobody_to_connect_to(lab: Lab) -> None:
    """R6: start() without a broker raises ConnectFailed in time, and works when it is there."""
    await asyncio.to_thread(_broker(lab).kill)
    transport = lab.connect()
    began = lab.now()
    try:
        await transport.start()
    except ConnectFailed:
        waited = lab.now() - began
    else:
        raise NotConforming("start() without a broker did not raise")
    finally:
        await transport.stop()
        await asyncio.to_thread(_broker(lab).start)
    lab.expect(waited < lab.timings.recover, f"start() took {waited:.1f} s to fail")
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    await client.publish(subject)
    await lab.all_arrived()


@check("R8")
async def what_is_reported(lab: Lab) -> None:
    """R8: Connected, lost and restored are reported once each, in this order."""
    client = await lab.client()
    await client.publish(lab.subject())
    await _kill(lab)
    await _revive(lab)
    kinds = (NoticeKind.CONNECTED, NoticeKind.LOST, NoticeKind.RESTORED)
    seen = [notice.kind for notice in lab.harness.notices if notice.kind in kinds]
    lab.expect(seen == [*kinds], f"reported: {[kind.value for kind in seen]}")


@check("R9")
async def stopping_without_a_broker(lab: Lab) -> None:
    """R9: stop() ends although the broker is dead, and so do calls that wait for it."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, lab.group())
    await client.publish(subject)
    await _kill(lab)
    publishing = asyncio.create_task(client.publish(subject))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(lab.timings.recover):
            with suppress(ArcBusError):
                await client.stop()
            await asyncio.wait([publishing])
    finally:
        await asyncio.to_thread(_broker(lab).start)
    error = publishing.exception()
    lab.expect(error is None or isinstance(error, ArcBusError), f"publishing raised {error!r}")


@check("R10", ACK, GROUPS, REDELIVERY, SURVIVES_BROKER)
async def an_ack_that_cannot_arrive(lab: Lab) -> None:
    """R10: An ack without a connection raises, or holds: what it settled never comes again."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, lab.group())
    await client.publish_in_turn(subject, 3)
    deliveries = await consumer.take(3)
    await _kill(lab)
    acking = [asyncio.create_task(consumer.ack(delivery)) for delivery in deliveries]
    await asyncio.wait(acking, timeout=1.0)
    await _revive(lab)
    outcomes = await asyncio.gather(*acking, return_exceptions=True)
    odd = [each for each in outcomes if isinstance(each, Exception)]
    lab.expect(all(isinstance(each, TransportError) for each in odd), f"ack() raised {odd}")
    # Whatever was acked with success must not come again: the judge sees to that.
    await asyncio.sleep(lab.capabilities.ack_deadline or 0.0)
    sure = await _publish_for_sure(lab, client, subject)
    await consumer.redelivery(sure, 1)


@check("Q12", REQUEST_REPLY)
async def a_request_without_a_broker(lab: Lab) -> None:
    """Q12: A request without a connection raises a typed error within its time."""
    client = await lab.client()
    await client.publish(lab.subject())
    await _kill(lab)
    began = lab.now()
    try:
        await client.request(lab.subject(), b"?", 1.0)
    except (RequestError, TransportError):
        waited = lab.now() - began
    else:
        raise NotConforming("a request without a broker returned a reply")
    finally:
        await _revive(lab)
    lab.expect(waited < 1.0 + lab.timings.late, f"a request with 1 s took {waited:.1f} s to fail")
