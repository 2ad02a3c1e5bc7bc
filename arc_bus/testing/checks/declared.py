"""M: a transport is what it declares, no less and no more.

One check for each capability: it applies where that is declared absent, and asks for it anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator

from arc_bus.errors import Unsupported
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Client
from arc_bus.testing.consumer import Consumer
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import (
    BROWSE,
    EXTEND,
    GROUPS,
    NACK,
    NACK_DELAYED,
    REJECT,
    REQUEST_REPLY,
    START_EARLIEST,
    TAIL,
    TOKEN,
)
from arc_bus.transport import Capabilities, Delivery, Outgoing, StartAt


async def _refused(what: str, call: Awaitable[object]) -> None:
    try:
        await call
    except Unsupported:
        return
    raise NotConforming(f"{what} is declared absent, and did not raise Unsupported")


async def _one_delivery(lab: Lab) -> tuple[Client, Consumer, Delivery]:
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject)
    await client.publish(subject)
    return client, consumer, (await consumer.take(1))[0]


@check("M1a", ~NACK)
async def no_nack(lab: Lab) -> None:
    """M1a: Without nack, nack() raises Unsupported."""
    _, consumer, delivery = await _one_delivery(lab)
    await _refused("nack", consumer.feed.nack(delivery))


@check("M1b", NACK, ~NACK_DELAYED)
async def no_delay(lab: Lab) -> None:
    """M1b: Without delayed nack, nack(delay=1) raises Unsupported."""
    _, consumer, delivery = await _one_delivery(lab)
    await _refused("a delayed nack", consumer.feed.nack(delivery, 1.0))


@check("M1c", ~REJECT)
async def no_reject(lab: Lab) -> None:
    """M1c: Without reject, reject() raises Unsupported."""
    _, consumer, delivery = await _one_delivery(lab)
    await _refused("reject", consumer.feed.reject(delivery))


@check("M1d", ~EXTEND)
async def no_extend(lab: Lab) -> None:
    """M1d: Without extend, extend() raises Unsupported."""
    _, consumer, delivery = await _one_delivery(lab)
    await _refused("extend", consumer.feed.extend(delivery))


@check("M1e", ~START_EARLIEST)
async def no_earliest(lab: Lab) -> None:
    """M1e: Without it, subscribing with start=EARLIEST raises Unsupported."""
    client = await lab.client()
    await _refused(
        "start=EARLIEST", client.consume(lab.subject(), lab.harness.group(), start=StartAt.EARLIEST)
    )


@check("M1f", ~TOKEN)
async def no_star(lab: Lab) -> None:
    """M1f: Without wildcards, subscribing with `*` raises Unsupported."""
    client = await lab.client()
    await _refused("the wildcard *", client.consume(lab.harness.family(1)[0], lab.harness.group()))


@check("M1g", ~TAIL)
async def no_tail(lab: Lab) -> None:
    """M1g: Without it, subscribing with `>` raises Unsupported."""
    client = await lab.client()
    await _refused("the wildcard >", client.consume("conformance.>", lab.harness.group()))


@check("M1h", ~GROUPS)
async def no_groups(lab: Lab) -> None:
    """M1h: Without groups, subscribing with one raises Unsupported."""
    client = await lab.client()
    await _refused("a group", client.consume(lab.subject(), lab.harness.group()))


@check("M1i", ~REQUEST_REPLY)
async def no_requests(lab: Lab) -> None:
    """M1i: Without request and reply, request(), gather() and reply() raise Unsupported."""
    client, _, delivery = await _one_delivery(lab)
    outgoing = Outgoing(lab.subject(), b"?", {}, lab.new_id())
    await _refused("request", client.transport.request(outgoing, 0.5))
    await _refused("gather", client.transport.gather(outgoing, 0.5, 1))
    await _refused("reply", client.transport.reply(delivery, outgoing))


@check("M1j", ~BROWSE)
async def no_browsing(lab: Lab) -> None:
    """M1j: Where nothing is kept retain() is harmless; browse() and discard() raise Unsupported."""
    client, _, delivery = await _one_delivery(lab)
    await client.transport.retain(lab.subject())

    async def browse() -> None:
        async for _ in client.transport.browse(lab.subject()):
            pass

    await _refused("browse", browse())
    await _refused("discard", client.transport.discard(delivery))


@check("M3")
async def an_instance_declares_no_more(lab: Lab) -> None:
    """M3: An instance may declare less than its class, never more."""
    transport = lab.connect()
    try:
        of_class, of_instance = type(transport).capabilities, transport.capabilities
        more = list(_more(of_class, of_instance))
        lab.expect(not more, f"the instance declares more than its class: {more}")
    finally:
        await transport.stop()


def _more(less: Capabilities, more: Capabilities) -> Iterator[str]:
    """Iterate over those flags, sets and guarantees of which `more` has more."""
    for name in ("groups", "reject", "extend", "request_reply", "no_responders", "browse"):
        if getattr(more, name) and not getattr(less, name):
            yield name
    for name in ("durable", "start", "wildcards", "ordering_survives"):
        if not getattr(more, name) <= getattr(less, name):
            yield name
    for name in ("delivery", "publish", "ack", "nack", "attempts"):
        if getattr(more, name).value > getattr(less, name).value:
            yield name
