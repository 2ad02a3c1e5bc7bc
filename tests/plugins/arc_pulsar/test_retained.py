"""Dead letters: kept from the first one on, listed as often as wanted, removed one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, cast

import pytest

from arc_bus.errors import ConfigError
from arc_bus.servers import PulsarServer
from arc_bus.transport import Delivery
from arc_pulsar import retained

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        Connect,
        Rig,
    )


async def listed(rig: Rig, pattern: str) -> list[bytes]:
    return [delivery.body async for delivery in rig.transport.browse(pattern)]


@pytest.fixture
def dead(topic: str) -> str:
    return topic + "-dlq"


async def test_what_is_kept_can_be_listed_again_and_again_and_by_others(
    connect: Connect, dead: str
) -> None:
    rig, other = await connect(), await connect()
    await rig.transport.retain(dead)
    await rig.publish_together(dead, [b"0", b"1", b"2"])
    for _ in range(3):
        assert await listed(rig, dead) == [b"0", b"1", b"2"]
        assert await listed(other, dead) == [b"0", b"1", b"2"]


async def test_a_dead_letter_topic_keeps_its_first_message_without_retain(
    rig: Rig, real_pulsar_server: PulsarServer, dead: str
) -> None:
    await rig.publish(dead, b"first")
    path = dead.replace("://", "/") + "/subscriptions"
    assert real_pulsar_server.admin("GET", path) == [retained.SUBSCRIPTION]
    assert await listed(rig, dead) == [b"first"]


@pytest.mark.usefixtures("real_pulsar_server")
async def test_discarded_messages_are_gone_for_everybody_and_their_neighbours_stay(
    connect: Connect, dead: str
) -> None:
    rig, other = await connect(), await connect()
    await rig.publish_together(dead, [b"%d" % number for number in range(10)])
    async for delivery in rig.transport.browse(dead):  # while it goes on ...
        if int(delivery.body) % 2:
            await rig.transport.discard(delivery)
    assert await listed(other, dead) == [b"0", b"2", b"4", b"6", b"8"]
    kept = [delivery async for delivery in other.transport.browse(dead)]
    await other.transport.discard(kept[1])  # ... and after it has ended
    await other.transport.discard(kept[1])  # a no-op: it is gone already
    assert await listed(rig, dead) == [b"0", b"4", b"6", b"8"]


async def test_an_empty_topic_and_one_whose_messages_are_all_gone_end_by_themselves(
    rig: Rig, dead: str
) -> None:
    assert await listed(rig, dead) == []
    await rig.publish(dead, b"x")
    async for delivery in rig.transport.browse(dead):
        await rig.transport.discard(delivery)
    assert await listed(rig, dead) == []


async def test_a_browsed_message_is_whole(rig: Rig, dead: str) -> None:
    await rig.publish(dead, b"body", key="k")
    (delivery,) = [delivery async for delivery in rig.transport.browse(dead)]
    assert (delivery.subject, delivery.body, delivery.key) == (dead, b"body", "k")
    assert delivery.id == "id-" + b"body".hex()


async def test_a_browse_that_is_left_early_lets_others_look(connect: Connect, dead: str) -> None:
    rig, other = await connect(), await connect()
    await rig.publish(dead, b"0", b"1")
    looking = cast("AsyncGenerator[Delivery]", rig.transport.browse(dead))
    assert (await anext(looking)).body == b"0"
    waiting = asyncio.ensure_future(listed(other, dead))
    assert await listed(other, dead.replace("-dlq", "-other-dlq")) == []  # as long a way as this
    assert not waiting.done()  # one browser at a time
    await looking.aclose()
    assert await waiting == [b"0", b"1"]


@pytest.mark.usefixtures("real_pulsar_server")
async def test_a_browse_that_never_gets_its_turn_says_who_has_it(
    connect: Connect, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "TURN", 0.3)
    rig, other = await connect(), await connect()
    await rig.publish(dead, b"0", b"1")
    looking = cast("AsyncGenerator[Delivery]", rig.transport.browse(dead))
    await anext(looking)
    await other.transport.retain(dead)  # does not need a turn of its own
    with pytest.raises(ConfigError, match="browsed by another"):
        await listed(other, dead)
    await looking.aclose()


async def test_partitions_are_browsed_one_after_another(rig: Rig, partitioned: str) -> None:
    await rig.transport.retain(partitioned)
    for number in range(20):
        await rig.publish(partitioned, b"%d" % number, key=f"k{number}")
    got = [delivery async for delivery in rig.transport.browse(partitioned)]
    assert sorted(int(delivery.body) for delivery in got) == list(range(20))
    assert {delivery.subject for delivery in got} == {partitioned}
    for delivery in got[::2]:
        await rig.transport.discard(delivery)
    left = [delivery.body async for delivery in rig.transport.browse(partitioned)]
    assert left == [delivery.body for delivery in got[1::2]]


async def test_the_dead_letters_of_a_wildcard_are_kept_in_topics_that_come_later(
    connect: Connect, real_pulsar_server: PulsarServer, unique: Callable[..., str]
) -> None:
    name = f"public/{unique('ns')}"
    real_pulsar_server.admin("PUT", f"namespaces/{name}")
    pattern = f"persistent://{name}/*-dlq"
    rig, other = await connect(), await connect()
    await rig.transport.retain(pattern)
    for part in ("a", "b"):
        await rig.publish(f"persistent://{name}/{part}-dlq", part.encode())
    got = [delivery async for delivery in other.transport.browse(pattern)]
    assert sorted(delivery.subject for delivery in got) == [
        f"persistent://{name}/{part}-dlq" for part in ("a", "b")
    ]
    async for delivery in other.transport.browse(pattern):
        if delivery.body == b"a":
            await other.transport.discard(delivery)
    assert await listed(rig, pattern) == [b"b"]


async def test_only_what_was_browsed_can_be_discarded(rig: Rig, dead: str) -> None:
    with pytest.raises(ConfigError, match="browse"):
        await rig.transport.discard(Delivery(dead, b"", {}))
