"""Faults of a client: its process is killed (SIGKILL), so that nothing is flushed or closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.harness import FaultHarness, Victim
from arc_bus.testing.history import Fate, Publish, Reader, Receipt
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import ACK_CONFIRMED, GROUPS, REDELIVERY, SERVER_RECEIVED
from arc_bus.testing.victim import Order, Role
from arc_bus.transport import StartAt, Verdict


@asynccontextmanager
async def _victim(
    lab: Lab, role: Role, subject: str, ids: tuple[str, ...], group: str | None = None
) -> AsyncGenerator[Victim, None]:
    assert isinstance(lab.harness, FaultHarness)
    endpoint = lab.harness.endpoint()
    order = Order(
        url=endpoint.url,
        options=msgspec.to_builtins(endpoint.options),
        role=role,
        subject=subject,
        ids=ids,
        group=group,
        subscription_options=msgspec.to_builtins(lab.harness.options()),
    )
    victim = await lab.harness.victim(order)
    try:
        lab.expect(await _line(lab, victim) == "ready", "the other client was not ready")
        yield victim
    finally:
        await victim.kill()


async def _line(lab: Lab, victim: Victim) -> str:
    line = await asyncio.wait_for(victim.line(), lab.timings.recover)
    if not line:
        raise NotConforming("the client to be killed ended by itself")
    return line


@check("P6", SERVER_RECEIVED)
async def a_killed_publisher(lab: Lab) -> None:
    """P6: What publish() confirmed arrives although its process is killed right after."""
    client = await lab.client()
    subject = lab.subject()
    await client.consume(subject, eager=True)
    ids = tuple(lab.new_id() for _ in range(500))
    # Each may have been sent; that it was is known when the line comes.
    publishes: dict[str, Publish] = {id: lab.history.publish(id, subject, None) for id in ids}
    async with _victim(lab, Role.PUBLISH, subject, ids) as victim:
        for _ in range(20):
            lab.history.published(publishes[await _line(lab, victim)], Fate.CONFIRMED)
        await victim.kill()
    await lab.all_arrived()


async def _read_and_die(lab: Lab, role: Role) -> tuple[Reader, list[str], str]:
    """Let another process get 10 messages and die; return its reader, their ids, the subject."""
    client = lab.clients[0]
    subject, group = lab.subject(), lab.group()
    ids = tuple(lab.new_id() for _ in range(10))
    async with _victim(lab, role, subject, ids, group) as victim:
        reader = lab.history.subscribed("the victim", subject, group, StartAt.NEW)
        reader.active = lab.history.place()
        reader.granted = len(ids)
        sent = await client.publish_in_turn(subject, 10)
        for _ in sent:
            receipt = _noted(lab, reader, await _line(lab, victim), subject)
            if role is Role.ACK:
                settlement = lab.history.settle(receipt, Verdict.ACK)
                settlement.ended = lab.history.place()
        reader.ended = lab.history.place()
        await victim.kill()
    return reader, sent, subject


def _noted(lab: Lab, reader: Reader, id: str, subject: str) -> Receipt:
    return lab.history.receive(reader, id, subject, None, 1)


@check("A3b", REDELIVERY, GROUPS)
async def a_killed_reader(lab: Lab) -> None:
    """A3b: What a killed process had and had not settled is delivered to another."""
    client = await lab.client()
    reader, sent, subject = await _read_and_die(lab, Role.HOLD)
    survivor = await client.consume(subject, reader.group, eager=True)
    await lab.until(
        lambda: {*sent} <= {*survivor.ids},
        lambda: f"of 10 messages held by a killed process {len({*survivor.ids})} came again",
        within=(lab.capabilities.ack_deadline or 0.0) + lab.timings.recover,
    )


@check("A12b", ACK_CONFIRMED, REDELIVERY, GROUPS)
async def a_killed_reader_that_had_acked(lab: Lab) -> None:
    """A12b: What a killed process had acked, by a confirmed ack, is never delivered again."""
    client = await lab.client()
    reader, sent, subject = await _read_and_die(lab, Role.ACK)
    survivor = await client.consume(subject, reader.group, eager=True)
    await asyncio.sleep(lab.capabilities.ack_deadline or 0.0)
    await lab.fence(client, subject)
    lab.expect(not {*sent} & {*survivor.ids}, f"acked, and delivered again: {survivor.ids}")
