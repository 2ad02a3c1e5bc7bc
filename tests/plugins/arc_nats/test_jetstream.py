"""JetStream on a real server, beyond what the conformance kit asks of every transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import (
    AlreadySettled,
    BusStopped,
    ConfigError,
    ConnectionLost,
    NotSettled,
    PublishRejected,
    PublishUnconfirmed,
    Unsupported,
)
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Ack, Delivery, Endpoint, Outgoing, StartAt, Survives
from arc_nats.consumers import durable_name
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import ConsumerOptions, JetStreamOptions
from arc_nats.streams import covers, subjects_of

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


# Streams


async def test_the_stream_of_the_url_is_made_for_the_routes_prefixes(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", f"dead.{name}.")
    await transport.publish(message(f"{name}.a", b"1"))
    await transport.publish(message(f"dead.{name}.a", b"2"))
    assert await bodies(transport, f"{name}.>") == [b"1"]
    assert await bodies(transport, f"dead.{name}.>") == [b"2"]
    assert transport.capabilities.publish_dedup == 120.0
    assert Survives.BROKER_RESTART in transport.capabilities.durable


async def test_two_services_that_start_at_once_make_one_stream(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    await asyncio.gather(*(streaming(name, f"{name}.") for _ in range(8)))


async def test_without_a_name_the_stream_is_found_by_subject(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    await streaming(name, f"{name}.")
    nameless = await streaming("", f"{name}.")
    await nameless.publish(message(f"{name}.a", b"1"))
    assert await bodies(nameless, f"{name}.a") == [b"1"]


async def test_without_a_name_and_a_stream_the_error_names_the_remedy(
    streaming: StreamMaker, unique: Unique
) -> None:
    prefix = f"{unique()}."
    with pytest.raises(ConfigError, match=r"no stream keeps .*name one in the route"):
        await streaming("", prefix)
    made = await streaming("", prefix, query="?provision=true")
    await made.publish(message(f"{prefix}a", b"1"))
    assert await bodies(made, f"{prefix}>") == [b"1"]


async def test_provision_false_makes_nothing(streaming: StreamMaker, unique: Unique) -> None:
    name = unique()
    with pytest.raises(ConfigError, match="there is no stream"):
        await streaming(name, f"{name}.", query="?provision=false")


async def test_a_server_without_jetstream_is_named() -> None:
    with servers.nats_server(jetstream=False) as server:
        url = server.url.replace("nats://", "nats+jetstream://")
        transport = JetStreamTransport(Endpoint(url=f"{url}/S", prefixes=("a.",)))
        with pytest.raises(Unsupported, match="start nats-server with -js"):
            await transport.start()


@pytest.mark.parametrize(
    ("differing", "asked", "says"),
    [
        ({"storage": "memory"}, {}, "storage is memory, asked file"),
        ({"retention": "workqueue"}, {}, "retention is workqueue, asked limits"),
        ({"retention": "interest"}, {}, "retention is interest, asked limits"),
        ({"max_age": 3_600_000_000_000}, {}, "max_age is 3600 s, asked for ever"),
        ({"max_age": 10**12}, {"max_age": 2000.0}, "max_age is 1000 s, asked 2000 s"),
        ({"duplicate_window": 10**9}, {}, "duplicate_window is 1 s, asked at least 120 s"),
        ({"discard": "old", "max_msgs": 4}, {}, "discard is old with max_msgs, asked new"),
        ({"no_ack": True}, {}, "no_ack is True, asked False"),
        ({"sealed": True}, {}, "sealed is True"),
        ({}, {"replicas": 3}, "num_replicas is 1, asked at least 3"),
        ({"subjects": ["{0}.other"]}, {}, "subjects is .*other, asked .*> too"),
    ],
)
async def test_a_stream_that_breaks_the_routes_promises_fails_the_start(
    streaming: StreamMaker,
    unique: Unique,
    differing: dict[str, object],
    asked: dict[str, object],
    says: str,
) -> None:
    """Hazards 6 and 21: a durable route that stores nothing, or less than it says."""
    name = unique()
    helper = await streaming(unique(), f"{unique()}.")
    subjects = [f"{name}.>"]
    if "subjects" in differing:
        subjects = [f"{name}.other"]
    config = {"name": name, "storage": "file"} | differing | {"subjects": subjects}
    session = helper._session
    assert session is not None
    sealed = config.pop("sealed", False)
    await session.api.ask(f"STREAM.CREATE.{name}", config, dict)
    if sealed:
        await session.api.ask(f"STREAM.UPDATE.{name}", config | {"sealed": True}, dict)
    options = JetStreamOptions(**asked)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        await streaming(name, f"{name}.", options=options)


async def test_provision_true_alters_what_can_be_altered_and_keeps_the_rest(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.a.", query="?duplicate_window=50")
    await transport.publish(message(f"{name}.a.x", b"1"))
    with pytest.raises(ConfigError, match="let provision=true alter it"):
        await streaming(name, f"{name}.b.")
    altered = await streaming(name, f"{name}.b.", query="?provision=true")
    await altered.publish(message(f"{name}.b.x", b"2"))
    await altered.publish(message(f"{name}.a.x", b"3"))
    assert await bodies(altered, f"{name}.>") == [b"1", b"2", b"3"]
    assert altered.capabilities.publish_dedup == 120.0


async def test_what_cannot_be_altered_is_said(streaming: StreamMaker, unique: Unique) -> None:
    name = unique()
    await streaming(name, f"{name}.")
    with pytest.raises(ConfigError, match="cannot be altered"):
        await streaming(name, f"{name}.", query="?provision=true&storage=memory")


async def test_a_memory_stream_declares_that_it_does_not_outlive_the_broker(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", query="?storage=memory")
    assert transport.capabilities.durable == {Survives.CLIENT_RESTART}


def test_repeating_a_publish_must_fit_the_duplicate_window() -> None:
    with pytest.raises(ConfigError, match="could be stored twice"):
        JetStreamTransport(
            Endpoint(url="nats+jetstream://h/S?duplicate_window=10&confirm_timeout=5")
        )


def test_subjects_cover_each_other_as_the_server_sees_it() -> None:
    assert subjects_of(("dead.", "a.b")) == ("dead.>", "a.b", "a.b.>")
    for wide, narrow in (
        ("a.>", "a.b"),
        ("a.>", "a.b.>"),
        (">", "a.>"),
        ("a.*.>", "a.b.>"),
        ("a.*", "a.b"),
        ("a.*", "a.*"),
        ("a.>", "a.*"),
    ):
        assert covers(wide, narrow), (wide, narrow)
    for wide, narrow in (("a.*", "a.>"), ("a.b", "a.*"), ("a.b.>", "a.>"), ("a.>", "b.>")):
        assert not covers(wide, narrow), (wide, narrow)


# Consumers


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


# Verdicts


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


async def test_a_thousand_verdicts_of_one_turn_need_one_confirmation(
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
    await asyncio.gather(*(feed.ack(delivery) for delivery in got.deliveries))
    assert session.inbox._next - asked == 1
    session = transport._session
    assert session is not None
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
        await transport.publish(message(f"{name}.a"))
        feed = await transport.subscribe(reading(f"{name}.>"), got := received())
        feed.grant(1)
        (delivery,) = await got.wait(1)
        await freeze(server)
        saying = asyncio.create_task(feed.ack(delivery))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.kill)
        with pytest.raises(NotSettled, match="the connection broke"):
            await saying


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


# Publishing


async def test_a_publish_without_a_stream_names_the_remedy(
    streaming: StreamMaker, unique: Unique
) -> None:
    transport = await streaming(unique(), f"{unique()}.")
    with pytest.raises(PublishRejected, match="make a stream for it"):
        await transport.publish(message(unique()))


async def test_a_full_stream_refuses_with_its_own_words(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.", query="?max_bytes=2000")

    async def fill() -> None:
        for number in range(100):
            await transport.publish(message(f"{name}.a", b"%0200d" % number))

    with pytest.raises(PublishRejected, match=r"maximum bytes exceeded \(JetStream error 10077\)"):
        await fill()
    assert (await bodies(transport, f"{name}.a"))[0] == b"%0200d" % 0


async def test_the_window_bounds_what_is_unconfirmed_and_is_fair(
    streaming: StreamMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(window=4)
        transport = await streaming(name, f"{name}.", url=server.url, options=options)
        window = transport._window
        assert window is not None
        await freeze(server)
        done: list[int] = []

        async def publish(number: int) -> None:
            await transport.publish(message(f"{name}.a", b"%d" % number))
            done.append(number)

        tasks = [asyncio.create_task(publish(number)) for number in range(40)]
        await asyncio.sleep(0.05)
        assert len(window._waiting) == 4
        for cancelled in tasks[2:4] + tasks[10:12]:
            cancelled.cancel()
        await asyncio.wait(tasks[2:4] + tasks[10:12])
        server.resume()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == [n for n in range(40) if n not in (2, 3, 10, 11)]


async def test_what_was_never_sent_is_told_from_what_may_be_stored(
    streaming: StreamMaker, unique: Unique, notices: Notices, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(
            confirm_timeout=0.2, publish_tries=2, reconnect_wait=0.2, close_timeout=0.2
        )
        transport = await streaming(
            name, f"{name}.", url=server.url, options=options, report=notices
        )
        await freeze(server)
        with pytest.raises(PublishUnconfirmed, match="under the same message_id"):
            await transport.publish(message(f"{name}.a", b"1"))
        await asyncio.to_thread(server.kill)
        await notices.wait(NoticeKind.LOST)
        with pytest.raises(ConnectionLost, match="not sent"):
            await transport.publish(message(f"{name}.a", b"2"))
        await asyncio.to_thread(server.start)
        await notices.wait(NoticeKind.RESTORED)
        await transport.publish(message(f"{name}.a", b"3"))
        assert (await bodies(transport, f"{name}.a"))[-1] == b"3"


# Dead letters and what else is kept


async def test_retain_makes_room_in_the_stream_or_says_what_is_missing(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"dead.{name}.")
    await transport.retain(f"dead.{name}.a.>")
    with pytest.raises(ConfigError, match="is not what the route asks: subjects"):
        await transport.retain(f"other.{name}")
    willing = await streaming(name, f"dead.{name}.", query="?provision=true")
    await willing.retain(f"other.{name}")
    await willing.publish(message(f"other.{name}", b"kept"))
    assert await bodies(willing, f"other.{name}") == [b"kept"]
    nameless = await streaming("")
    with pytest.raises(ConfigError, match="needs one stream that keeps it, there is none"):
        await nameless.retain(f"nowhere.{name}")


async def test_browsing_ends_at_its_present_end_and_discards_one(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.")
    for number in range(5):
        await transport.publish(message(f"{name}.{number % 2}", b"%d" % number))
    seen: list[bytes] = []
    async for delivery in transport.browse(f"{name}.*"):
        seen.append(delivery.body)
        await transport.publish(message(f"{name}.0", b"new" + delivery.body))
        if delivery.body == b"2":
            await transport.discard(delivery)
            await transport.discard(delivery)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert await bodies(transport, f"{name}.0") == [b"0", b"4", *(b"new%d" % n for n in range(5))]
    with pytest.raises(Unsupported, match="only a browsed message"):
        await transport.discard(Delivery(name, b"", {}))


async def test_health_tells_of_a_server_that_does_not_answer(
    streaming: StreamMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        options = JetStreamOptions(flush_timeout=0.3, close_timeout=0.2)
        transport = await streaming(unique(), f"{unique()}.", url=server.url, options=options)
        assert await transport.health() is None
        await freeze(server)
        assert "within 0.3 s" in (await transport.health() or "")


async def test_stop_lets_go_of_what_is_not_confirmed(
    streaming: StreamMaker, unique: Unique, freeze: Freeze
) -> None:
    with servers.nats_server() as server:
        name = unique()
        options = JetStreamOptions(close_timeout=0.2)
        transport = await streaming(name, f"{name}.", url=server.url, options=options)
        await freeze(server)
        publishing = asyncio.create_task(transport.publish(message(f"{name}.a")))
        await asyncio.sleep(0)
        began = time.monotonic()
        await transport.stop()
        assert time.monotonic() - began < 3
        with pytest.raises(PublishUnconfirmed):
            await publishing
        with pytest.raises(BusStopped):
            await transport.publish(message(f"{name}.a"))
