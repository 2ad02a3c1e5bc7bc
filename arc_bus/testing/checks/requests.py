"""Q: request and reply."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from arc_bus.errors import NoResponders, PayloadTooLarge, RequestTimeout
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Client
from arc_bus.testing.consumer import Consumer
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import GROUPS, NO_RESPONDERS, REQUEST_REPLY
from arc_bus.transport import Delivery, Outgoing

_HEADERS = {"colour": "red"}


def _echo(delivery: Delivery) -> bytes:
    return delivery.body


@asynccontextmanager
async def _responder(
    client: Client,
    subject: str,
    group: str | None = None,
    answer: Callable[[Delivery], bytes] = _echo,
) -> AsyncGenerator[Consumer, None]:
    """Answer requests to `subject` while it is open."""
    lab = client.lab
    consumer = await client.consume(subject, group)

    async def serve() -> None:
        for served in itertools.count(1):
            delivery = (await consumer.take(served, lab.timings.check))[-1]
            await _reply(client, delivery, answer(delivery))
            await consumer.ack(delivery)

    serving = asyncio.create_task(serve())
    try:
        yield consumer
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()


async def _reply(client: Client, delivery: Delivery, body: bytes) -> None:
    reply = Outgoing(delivery.reply_to or "", body, _HEADERS, client.lab.new_id())
    await client.transport.reply(delivery, reply)


@check("Q1", REQUEST_REPLY)
async def each_gets_its_own_reply(lab: Lab) -> None:
    """Q1: A hundred requests at the same time each get their own reply, with its headers."""
    caller, server = await lab.client(), await lab.client()
    subject = lab.subject()
    async with _responder(server, subject, lab.group()):
        asked = [b"question %d" % number for number in range(100)]
        replies = await asyncio.gather(
            *(caller.request(subject, body, lab.timings.arrive) for body in asked)
        )
    answers = [reply.body for reply in replies]
    lab.expect(answers == asked, f"replies were mixed up: {answers[:5]}...")
    colours = {reply.headers.get("colour") for reply in replies}
    lab.expect(colours == {"red"}, f"the replies' header arrived as {colours}")


@check("Q2", REQUEST_REPLY)
async def silence_times_out(lab: Lab) -> None:
    """Q2: A request that nobody answers raises RequestTimeout, when its time is over."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject)
    began = lab.now()
    try:
        await client.request(subject, b"?", 0.5)
    except RequestTimeout:
        waited = lab.now() - began
    else:
        raise NotConforming("a request that nobody answered returned a reply")
    lab.expect(0.45 <= waited <= 0.5 + lab.timings.late, f"0.5 s lasted {waited:.3f} s")
    lab.expect(len(consumer.ids) == 1, f"the request arrived {len(consumer.ids)} times")


@check("Q3", REQUEST_REPLY)
async def a_late_reply_is_dropped(lab: Lab) -> None:
    """Q3: A reply that comes after the time-out is dropped, and is not the next request's."""
    caller, server = await lab.client(), await lab.client()
    subject, other = lab.subject(), lab.subject()
    silent = await server.consume(subject)
    try:
        await caller.request(subject, b"first", 0.3)
    except RequestTimeout:
        pass
    else:
        raise NotConforming("a request that nobody answered returned a reply")
    async with _responder(server, other):
        asking = asyncio.create_task(caller.request(other, b"second", lab.timings.arrive))
        await _reply(server, (await silent.take(1))[0], b"late")
        reply = await asking
    lab.expect(reply.body == b"second", f"the reply was {reply.body!r}")


@check("Q4", REQUEST_REPLY, NO_RESPONDERS)
async def nobody_there_is_known_at_once(lab: Lab) -> None:
    """Q4: A request to a subject where nobody listens raises NoResponders, not after a time-out."""
    client = await lab.client()
    began = lab.now()
    try:
        await client.request(lab.subject(), b"?", 20.0)
    except NoResponders:
        waited = lab.now() - began
    else:
        raise NotConforming("a request to nobody returned a reply")
    lab.expect(waited < 5.0, f"it took {waited:.1f} s to know")


@check("Q4b", REQUEST_REPLY, NO_RESPONDERS)
async def nobody_there_any_more(lab: Lab) -> None:
    """Q4b: The same once the only listener has stopped."""
    client = await lab.client()
    subject = lab.subject()
    async with _responder(client, subject, lab.group()) as responder:
        await client.request(subject, b"?", lab.timings.arrive)
    await responder.close()
    try:
        await client.request(subject, b"?", 20.0)
    except NoResponders:
        return
    raise NotConforming("a request to nobody returned a reply")


@check("Q6", REQUEST_REPLY, GROUPS)
async def one_of_a_group_answers(lab: Lab) -> None:
    """Q6: Of a group one member gets the request."""
    client = await lab.client()
    subject, group = lab.subject(), lab.group()
    async with (
        _responder(client, subject, group) as first,
        _responder(client, subject, group) as second,
    ):
        for _ in range(20):
            await client.request(subject, b"?", lab.timings.arrive)
        total = len(first.ids) + len(second.ids)
    lab.expect(total == 20, f"20 requests were delivered {total} times")


@check("Q7", REQUEST_REPLY)
async def gathering(lab: Lab) -> None:
    """Q7: gather() returns up to the number asked for, and what there is when the time is over."""
    caller, server = await lab.client(), await lab.client()
    subject = lab.subject()
    async with (
        _responder(server, subject, answer=lambda _: b"one"),
        _responder(server, subject, answer=lambda _: b"two"),
        _responder(server, subject, answer=lambda _: b"three"),
    ):
        all_three = await caller.gather(subject, lab.timings.arrive, 3)
        bodies = {reply.body for reply in all_three}
        lab.expect(bodies == {b"one", b"two", b"three"}, f"three were asked for, came: {bodies}")
        two = await caller.gather(subject, lab.timings.arrive, 2)
        lab.expect(len(two) == 2, f"two were asked for, {len(two)} came")
        began = lab.now()
        fewer = await caller.gather(subject, 0.5, 10)
        lab.expect(len(fewer) == 3, f"ten were asked for, {len(fewer)} of 3 came")
        waited = lab.now() - began
        lab.expect(waited >= 0.45, f"gather() for 0.5 s gave up after {waited:.3f} s")


@check("Q8", REQUEST_REPLY)
async def gathering_from_nobody(lab: Lab) -> None:
    """Q8: gather() where nobody listens returns an empty list."""
    client = await lab.client()
    replies = await client.gather(lab.subject(), 0.5, 3)
    lab.expect(replies == [], f"nobody listens, and {len(replies)} replies came")


@check("Q9", REQUEST_REPLY)
async def requests_have_the_limit(lab: Lab) -> None:
    """Q9: A request above the declared size raises PayloadTooLarge."""
    client = await lab.client()
    subject = lab.subject()
    async with _responder(client, subject):
        try:
            await client.request(subject, b"x" * (lab.capabilities.max_payload + 1), 1.0)
        except PayloadTooLarge:
            return
    raise NotConforming("a request above the declared limit was sent")


@check("Q11", REQUEST_REPLY)
async def a_cancelled_request_is_forgotten(lab: Lab) -> None:
    """Q11: A cancelled request raises CancelledError, and its late reply harms nobody."""
    client = await lab.client()
    subject, other = lab.subject(), lab.subject()
    silent = await client.consume(subject)
    asking = asyncio.create_task(client.request(subject, b"?", lab.timings.arrive))
    delivery = (await silent.take(1))[0]
    asking.cancel()
    await asyncio.wait([asking])
    lab.expect(asking.cancelled(), "a cancelled request did not end as cancelled")
    await _reply(client, delivery, b"late")
    async with _responder(client, other):
        reply = await client.request(other, b"next", lab.timings.arrive)
    lab.expect(reply.body == b"next", f"the next reply was {reply.body!r}")
