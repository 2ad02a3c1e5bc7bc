"""Settling: what is remembered of deliveries that nobody settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arc_bus.policy import Subscription
from arc_bus.transport import Outgoing, StartAt, Verdict
from arc_nats.jetstream import JetStreamTransport
from arc_nats.pull import PullFeed

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Received,
        StreamMaker,
    )


def all_of(name: str) -> Subscription:
    """A group that reads a stream from its first message."""
    return Subscription(pattern=f"{name}.>", group="g", start=StartAt.EARLIEST)


async def twenty(transport: JetStreamTransport, name: str, got: Received) -> PullFeed:
    """Publish twenty messages, and subscribe to them."""
    for number in range(20):
        await transport.publish(Outgoing(f"{name}.a", b"", {}, f"{name}-{number}"))
    feed = await transport.subscribe(all_of(name), got)
    assert isinstance(feed, PullFeed)
    return feed


async def test_deliveries_that_are_over_their_deadline_are_forgotten(
    streaming: StreamMaker, unique: Callable[..., str], received: Callable[[], Received]
) -> None:
    name, got = unique(), received()
    transport = await streaming(name, f"{name}.", query="?ack_wait=0.2")
    feed = await twenty(transport, name, got)
    feed.grant(1000)
    last = (await got.wait(300))[-1]
    assert len(feed._unsettled) < 100
    await feed.ack(last)
    await feed.close()


async def test_acks_of_one_turn_are_said_once_each_and_nothing_is_given_back_after_them(
    streaming: StreamMaker, unique: Callable[..., str], received: Callable[[], Received]
) -> None:
    name, got, later = unique(), received(), received()
    transport = await streaming(name, f"{name}.")
    feed = await twenty(transport, name, got)
    feed.grant(20)
    refused: list[Exception] = []
    for delivery in [*(await got.wait(20)), *got.deliveries]:  # saying it again changes nothing
        feed.ack_soon(delivery, refused.append)
    assert {delivery.verdict for delivery in got.deliveries} == {Verdict.ACK}
    assert not feed._unsettled
    await feed.close()
    assert refused == []
    again = await transport.subscribe(all_of(name), later)
    again.grant(20)
    await transport.publish(Outgoing(f"{name}.a", b"new", {}, f"{name}-new"))
    assert [delivery.body for delivery in await later.wait(1)] == [b"new"]
    await again.close()
