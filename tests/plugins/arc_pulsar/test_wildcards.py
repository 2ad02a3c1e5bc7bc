"""`*` for the last part of a topic's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from arc_bus.notice import Notice, NoticeKind
from arc_bus.servers import PulsarServer
from arc_bus.transport import StartAt
from arc_pulsar import topics
from arc_pulsar.transport import PulsarTransport

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        Connect,
        Rig,
    )


@pytest.fixture
def namespace(real_pulsar_server: PulsarServer, unique: Callable[..., str]) -> str:
    """A namespace of the test's own, as a topic's beginning."""
    name = f"public/{unique('ns')}"
    real_pulsar_server.admin("PUT", f"namespaces/{name}")
    return f"persistent://{name}/"


async def test_a_wildcard_reads_topics_that_exist_and_topics_that_come_from_their_first_message(
    rig: Rig, namespace: str
) -> None:
    await rig.read(namespace + "old", "keeper")
    await rig.publish(namespace + "old", b"before")
    reader = await rig.read(namespace + "*", start=StartAt.NEW)
    await rig.publish(namespace + "old", b"old")
    await rig.read(namespace + "new", "keeper")
    for number in range(5):
        await rig.publish(namespace + "new", b"%d" % number)
    lag = PulsarTransport.capabilities.discovery_lag
    got = await reader.until(6, timeout=lag)
    assert sorted((d.subject.removeprefix(namespace), d.body) for d in got) == [
        *(("new", b"%d" % number) for number in range(5)),
        ("old", b"old"),
    ]
    await reader.ack_all()


async def test_a_wildcard_at_earliest_reads_what_is_there(rig: Rig, namespace: str) -> None:
    await rig.read(namespace + "a.b", "keeper")
    await rig.publish(namespace + "a.b", b"x")
    reader = await rig.read(namespace + "a*")
    (delivery,) = await reader.until(1)
    assert delivery.subject == namespace + "a.b"


async def test_a_wildcard_reads_partitions_by_their_topics_name(
    rig: Rig, real_pulsar_server: PulsarServer, namespace: str
) -> None:
    path = namespace.replace("://", "/")
    real_pulsar_server.admin("PUT", f"{path}wide/partitions", 3)
    reader = await rig.read(namespace + "*")
    for number in range(12):
        await rig.publish(namespace + "wide", b"x", key=f"k{number}")
    got = await reader.until(12)
    assert {d.subject for d in got} == {namespace + "wide"}


async def test_a_wildcard_without_a_group_ends_its_subscription_everywhere(
    rig: Rig, real_pulsar_server: PulsarServer, namespace: str
) -> None:
    await rig.read(namespace + "t", "keeper")
    reader = await rig.read(namespace + "*", None, start=StartAt.NEW)
    await rig.publish(namespace + "t", b"x")
    await reader.until(1)
    await reader.feed.close()
    path = namespace.replace("://", "/") + "t/subscriptions"
    assert real_pulsar_server.admin("GET", path) == ["keeper"]
    await rig.transport.stop()  # nothing is left in the library that would hold it up
    assert rig.notices[-1] == Notice(kind=NoticeKind.STOPPED, transport=rig.notices[0].transport)


async def test_members_of_a_wildcard_group_share_its_messages(
    connect: Connect, namespace: str
) -> None:
    rigs = [await connect(), await connect()]
    await rigs[0].read(namespace + "t", "keeper")
    readers = [await rig.read(namespace + "*", start=StartAt.NEW) for rig in rigs]
    bodies = [b"%d" % number for number in range(50)]
    await rigs[0].publish(namespace + "t", *bodies)
    await rigs[0].until(lambda: sum(len(reader.got) for reader in readers) == 50)
    assert sorted(readers[0].bodies + readers[1].bodies) == sorted(bodies)
    assert all(reader.got for reader in readers)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("persistent://a/b/*", "persistent://a/b/c", True),
        ("persistent://a/b/*", "persistent://a/b/c-dlq", False),
        ("persistent://a/b/*-dlq", "persistent://a/b/c-dlq", True),
        ("persistent://a/b/*-dlq", "persistent://a/b/c", False),
        ("persistent://a/b/*", "persistent://a/bb/c", False),
        ("persistent://a/b/x.*", "persistent://a/b/x.y", True),
        ("persistent://a/b/x.*", "persistent://a/b/xy", False),
        ("persistent://a/b/c", "persistent://a/b/c", True),
        ("persistent://a/b/c", "persistent://a/b/c2", False),
    ],
)
def test_a_star_is_the_last_part_but_never_a_dead_letter_topic(
    pattern: str, topic: str, matches: bool
) -> None:
    assert topics.matches(pattern, topic) is matches


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("persistent://a/b/c-partition-0", "persistent://a/b/c"),
        ("persistent://a/b/c-partition-12", "persistent://a/b/c"),
        ("persistent://a/b/c", "persistent://a/b/c"),
        ("persistent://a/b/c-partition-x", "persistent://a/b/c-partition-x"),
    ],
)
def test_a_partition_is_part_of_its_topic(topic: str, subject: str) -> None:
    assert topics.subject_of(topic) == subject
