"""Streams: found, made, compared with what the route asks, altered; what they keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus import Bus, servers
from arc_bus.errors import (
    BusStopped,
    ConfigError,
    PublishUnconfirmed,
    Unsupported,
)
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.transport import Delivery, Endpoint, Outgoing, StartAt, Survives
from arc_nats.jetstream import JetStreamTransport
from arc_nats.options import JetStreamOptions
from arc_nats.streams import covers, subjects_of

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        Notices,
        StreamMaker,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]


def message(subject: str, body: bytes = b"", id: str = "") -> Outgoing:
    return Outgoing(subject, body, {}, id or f"{subject}-{body!r}")


def reading(pattern: str, group: str | None = "workers", options: object = None) -> Subscription:
    return Subscription(pattern=pattern, group=group, start=StartAt.EARLIEST, options=options)


def jetstream_url(transport: JetStreamTransport) -> str:
    return transport._endpoint.url.partition("?")[0]


async def bodies(transport: JetStreamTransport, pattern: str) -> list[bytes]:
    return [delivery.body async for delivery in transport.browse(pattern)]


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
    with pytest.raises(ConfigError, match=r"there is no stream.*arc-bus topology apply"):
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
        ({}, {"durability": "quorum"}, "is 1, asked at least 3 for durability=quorum"),
        ({}, {"durability": "fsync"}, "is 1, asked at least 3 for durability=fsync"),
        ({"storage": "memory"}, {"durability": "process"}, "storage is memory, asked file"),
        ({"persist_mode": "async"}, {"durability": "process"}, "persist_mode is async"),
        ({"max_bytes": 10**6, "discard": "old"}, {}, "discard is old with max_bytes, asked new"),
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
    query = "&".join(f"{option}={value}" for option, value in asked.items())
    with pytest.raises(ConfigError, match=says):
        await streaming(name, f"{name}.", query=f"?{query}")


async def test_a_route_that_asks_for_a_durability_says_what_it_could_not_verify(
    streaming: StreamMaker, unique: Unique, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hazard 7: acknowledged, and not yet on the disk."""
    name = unique()
    url = "nats+jetstream://h/S?durability=process&storage=memory"
    with pytest.raises(ConfigError, match="durability=process cannot hold with storage=memory"):
        JetStreamTransport(Endpoint(url=url))
    process = await streaming(name, f"{name}.", query="?durability=process", report=notices)
    assert not process.remarks
    with pytest.raises(ConfigError, match="replicas > 1 not supported in non-clustered mode"):
        await streaming(unique(), f"{unique()}.", query="?durability=quorum")
    # The shared server stands alone; what follows from three replicas is shown by the cluster.
    monkeypatch.setattr(JetStreamOptions, "least_replicas", 1)
    synced = await streaming(name, f"{name}.", query="?durability=fsync", report=notices)
    assert "sync_interval" in synced.remarks[0]
    assert [notice.detail for notice in notices.of(NoticeKind.ERROR)] == [*synced.remarks]
    async with Bus("s", {f"{name}.": f"{jetstream_url(synced)}?durability=fsync"}) as bus:
        (check, *_) = await bus.health()
        assert check.ok
        assert "durability=fsync is unverified" in check.detail


async def test_provision_true_alters_what_can_be_altered_and_keeps_the_rest(
    streaming: StreamMaker, unique: Unique
) -> None:
    name = unique()
    transport = await streaming(name, f"{name}.a.", query="?duplicate_window=50")
    await transport.publish(message(f"{name}.a.x", b"1"))
    session = transport._session
    assert session is not None
    config = (await session.api.ask(f"STREAM.INFO.{name}", None, dict))["config"]
    theirs = {"description": "an operator's own words", "max_msg_size": 1000}
    await session.api.ask(f"STREAM.UPDATE.{name}", config | theirs, dict)
    with pytest.raises(ConfigError, match="let provision=true alter it"):
        await streaming(name, f"{name}.b.")
    altered = await streaming(name, f"{name}.b.", query="?provision=true")
    await altered.publish(message(f"{name}.b.x", b"2"))
    await altered.publish(message(f"{name}.a.x", b"3"))
    assert await bodies(altered, f"{name}.>") == [b"1", b"2", b"3"]
    assert altered.capabilities.publish_dedup == 120.0
    config = (await session.api.ask(f"STREAM.INFO.{name}", None, dict))["config"]
    assert theirs.items() <= config.items()


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
