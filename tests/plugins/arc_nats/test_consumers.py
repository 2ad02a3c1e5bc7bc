"""Consumers and verdicts: durables, credit, what becomes of a delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    AlreadySettled,
    ConfigError,
    NotSettled,
)
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Ack, AcksSoon, Outgoing, StartAt, Verdict
from arc_nats.consumers import durable_name
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import ConsumerOptions, JetStreamOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Notices,
        Received,
        StreamMaker,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{body!r}")


def reading(pattern: str, group: str | None = "workers", options: object = None) -> Subscription:
    return Subscription(pattern=pattern, group=group, start=StartAt.EARLIEST, options=options)


async def bodies(transport: JetStreamTransport, pattern: str) -> list[bytes]:
    return [delivery.body async for delivery in transport.browse(pattern)]


def test_a_durables_name_is_readable_and_unlike_every_other() -> None:
    assert durable_name("sherlock_workers", "agent.brain.request") == (
        "sherlock_workers@agent~brain~request"
    )
    names = {
        durable_name(group, pattern)
        for group in ("a", "a.b", "a~b", "a@b", "a=2e")
        for pattern in ("x", "x.*", "x.>", "x.+", "x~y", "x.y", "é")
    }
    assert len(names) == 35
    assert len({durable_name("g" * 64, "s" * n) for n in range(200, 255)}) == 55
    assert max(len(durable_name("g" * 64, "." * n)) for n in range(255)) <= 255


async def test_a_consumer_that_differs_fails_the_start_or_is_altered(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    """Hazard 21: an existing durable wins silently."""
    name = unique()
    first = await streaming(name, f"{name}.", query="?ack_wait=60")
    feed = await first.subscribe(reading(f"{name}.>"), received())
    await feed.close()
    second = await streaming(name, f"{name}.")
    with pytest.raises(ConfigError, match="ack_wait is 60 s, asked 30 s"):
        await second.subscribe(reading(f"{name}.>"), received())
    third = await streaming(name, f"{name}.", query="?provision=true")
    await (await third.subscribe(reading(f"{name}.>"), received())).close()
    await (await second.subscribe(reading(f"{name}.>"), received())).close()


async def test_a_group_may_read_several_patterns(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    for letter in "ab":
        feed = await transport.subscribe(reading(f"{name}.{letter}"), got := received())
        feed.grant(10)
        await transport.publish(message(f"{name}.{letter}", letter.encode()))
        assert (await got.wait(1))[0].subject == f"{name}.{letter}"


async def test_options_of_a_subscription(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    options = ConsumerOptions(consumer="mine", ack_wait=90, max_ack_pending=7)
    await transport.subscribe(reading(f"{name}.>", options=options), received())
    session = transport._session
    assert session is not None
    info = await session.api.consumer(name, "mine")
    assert info is not None
    assert (info.config["ack_wait"], info.config["max_ack_pending"]) == (90 * 10**9, 7)
    for wrong, says in (
        (reading(f"{name}.>", options=ConsumerOptions(ack_wait=1)), "below the route's"),
        (reading(f"{name}.>", None, {"consumer": "x"}), "needs a group"),
        (reading(f"{name}.>", options=ConsumerOptions(consumer="a.b")), "must be 1 to 255"),
        (reading(f"{name}.>", options={"ackwait": 1}), "unknown field"),
    ):
        with pytest.raises(ConfigError, match=says):
            await transport.subscribe(wrong, received())


async def test_a_consumer_without_a_group_is_removed_at_the_end(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    feed = await transport.subscribe(Subscription(pattern=f"{name}.>"), got := received())
    feed.grant(1)
    await transport.publish(message(f"{name}.a"))
    await feed.ack((await got.wait(1))[0])
    session = transport._session
    assert session is not None
    assert (await session.api.ask(f"CONSUMER.NAMES.{name}", None, dict))["total"] == 1
    await feed.close()
    assert (await session.api.ask(f"CONSUMER.NAMES.{name}", None, dict))["total"] == 0


async def test_credit_is_never_exceeded_and_kept_asked_for(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    for number in range(300):
        await transport.publish(message(f"{name}.a", b"%d" % number))
    feed = await transport.subscribe(reading(f"{name}.>"), got := received())
    granted = 50
    feed.grant(50)
    while len(got.deliveries) < 300:
        seen = len(got.deliveries)
        await got.wait(seen + 1)
        assert len(got.deliveries) <= granted
        for delivery in got.deliveries[seen:]:
            await feed.ack(delivery)
        feed.grant(len(got.deliveries) - seen)
        granted += len(got.deliveries) - seen
    assert got.bodies == [b"%d" % number for number in range(300)]
    assert await feed.pending() == 0


async def test_verdicts_after_stop_reach_the_server(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    for number in range(4):
        await transport.publish(message(f"{name}.a", b"%d" % number))
    feed = await transport.subscribe(reading(f"{name}.>"), got := received())
    feed.grant(4)
    first, second, third, fourth = await got.wait(4)
    await feed.stop()
    await feed.ack(first)
    await feed.nack(second)
    await feed.reject(third)
    again = await transport.subscribe(reading(f"{name}.>"), other := received())
    again.grant(10)
    (back,) = await other.wait(1)
    assert (back.body, back.attempt) == (b"1", 2)
    await feed.close()  # what was not settled goes back too
    assert [one.body for one in await other.wait(2)] == [b"1", b"3"]
    with pytest.raises(NotSettled, match="closed"):
        await feed.ack(fourth)
    with pytest.raises(AlreadySettled):
        await feed.ack(third)


async def test_all_verdicts_of_one_turn_need_one_confirmation(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    await asyncio.gather(
        *(transport.publish(message(f"{name}.a", b"%d" % number)) for number in range(1000))
    )
    feed = await transport.subscribe(reading(f"{name}.>"), got := received())
    feed.grant(1000)
    await got.wait(1000)
    session = transport._session
    assert session is not None
    asked = session.inbox._next
    assert isinstance(feed, AcksSoon)
    refused: list[Exception] = []
    for delivery in got.deliveries[:500]:
        feed.ack_soon(delivery, refused.append)
    await asyncio.gather(*(feed.ack(delivery) for delivery in got.deliveries[500:]))
    assert session.inbox._next - asked == 2  # the tasks of `gather` run in the next turn
    assert not refused
    info = await session.api.ask(
        f"CONSUMER.INFO.{name}.{durable_name('workers', f'{name}.>')}", None, dict
    )
    assert info["num_ack_pending"] == 0


async def test_verdicts_while_disconnected_are_not_settled_and_can_be_said_again(
    streaming: StreamMaker, unique: Unique, notices: Notices, received: Callable[[], Received]
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(reconnect_wait=0.2)
        transport = await streaming(
            name, f"{name}.", url=server.url, options=options, report=notices
        )
        await transport.publish(message(f"{name}.a"))
        feed = await transport.subscribe(reading(f"{name}.>"), got := received())
        feed.grant(1)
        (delivery,) = await got.wait(1)
        await asyncio.to_thread(server.kill)
        await notices.wait(NoticeKind.LOST)
        for verdict in (feed.ack(delivery), feed.nack(delivery), feed.extend(delivery)):
            with pytest.raises(NotSettled, match="expect redelivery"):
                await verdict
        await asyncio.to_thread(server.start)
        await notices.wait(NoticeKind.RESTORED)
        await feed.ack(delivery)
        assert delivery.verdict is not None


async def test_a_verdict_in_flight_when_the_connection_breaks_is_not_settled(
    streaming: StreamMaker, unique: Unique, freeze: Freeze, received: Callable[[], Received]
) -> None:
    with servers.nats_server() as server:
        name = unique()
        transport = await streaming(name, f"{name}.", url=server.url)
        for body in (b"1", b"2"):
            await transport.publish(message(f"{name}.a", body))
        feed = await transport.subscribe(reading(f"{name}.>"), got := received())
        feed.grant(2)
        first, second = await got.wait(2)
        await freeze(server)
        saying = asyncio.create_task(feed.ack(first))
        await asyncio.sleep(0)
        assert isinstance(feed, AcksSoon)
        refused: list[Exception] = []
        feed.ack_soon(second, refused.append)
        feed.ack_soon(second, refused.append)
        await asyncio.sleep(0)
        assert second.verdict is Verdict.ACK
        await asyncio.to_thread(server.kill)
        with pytest.raises(NotSettled, match="the connection broke"):
            await saying
        assert [type(error) for error in refused] == [NotSettled]
        feed.ack_soon(second, refused.append)  # not said, and not forgotten: it can be said again
        assert "no connection" in str(refused[1])
        assert not any(delivery.verdict for delivery in got.deliveries)
        second.settle(Verdict.REJECT)
        feed.ack_soon(second, refused.append)
        assert isinstance(refused[2], AlreadySettled)


async def test_close_waits_for_acks_that_nobody_waits_for(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    await transport.publish(message(f"{name}.a"))
    feed = await transport.subscribe(reading(f"{name}.>"), got := received())
    feed.grant(1)
    (delivery,) = await got.wait(1)
    assert isinstance(feed, AcksSoon)
    refused: list[Exception] = []
    feed.ack_soon(delivery, refused.append)
    await feed.close()
    again = await transport.subscribe(reading(f"{name}.>"), received())
    info = await again._session.api.ask(  # type: ignore[attr-defined]
        f"CONSUMER.INFO.{name}.{durable_name('workers', f'{name}.>')}", None, dict
    )
    assert (info["num_ack_pending"], info["num_pending"]) == (0, 0)
    assert not refused


async def test_acks_can_be_left_unconfirmed(
    streaming: StreamMaker, unique: Unique, received: Callable[[], Received]
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", query="?confirm_acks=false")
    assert transport.capabilities.ack is Ack.BUFFERED
    await transport.publish(message(f"{name}.a"))
    feed = await transport.subscribe(reading(f"{name}.>"), got := received())
    feed.grant(1)
    step = feed.ack((await got.wait(1))[0])
    with pytest.raises(StopIteration):
        step.send(None)
    await feed.close()
    again = await transport.subscribe(reading(f"{name}.>"), received())
    assert await again.pending() == 0
