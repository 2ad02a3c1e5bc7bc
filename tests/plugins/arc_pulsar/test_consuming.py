"""What a subscription promises: everything once, within the credit, and back after a crash."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import pulsar
import pytest

from arc_bus.errors import AlreadySettled, BusStopped, ConfigError, NotSettled, Unsupported
from arc_bus.notice import NoticeKind
from arc_bus.servers import PulsarServer
from arc_bus.transport import AcksSoon, StartAt
from arc_pulsar import client, transport, vendor
from arc_pulsar.feed import NACK_FLOOR, PulsarFeed
from arc_pulsar.options import PulsarOptions, PulsarSubscription, SubscriptionType

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        AnyPulsar,
        Connect,
        Rig,
    )

LEVEL: Final = pulsar.LoggerLevel.Error


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_every_message_comes_once_where_nothing_fails(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic, credit=2000)
    await rig.publish_together(topic, numbers(1000))
    await reader.until(1000)
    await reader.ack_all()
    await rig.publish(topic, b"fence")
    await reader.until(1001)
    assert reader.bodies == [*numbers(1000), b"fence"]


async def test_a_new_group_at_new_sees_nothing_old_and_at_earliest_everything(
    rig: Rig, real_pulsar_server: PulsarServer, topic: str
) -> None:
    keeper = await rig.read(topic, "keeper")  # without any subscription Pulsar keeps nothing
    await rig.publish(topic, b"old")
    new = await rig.read(topic, "new", start=StartAt.NEW)
    earliest = await rig.read(topic, "earliest", start=StartAt.EARLIEST)
    await rig.publish(topic, b"fence")
    assert [d.body for d in await new.until(1)] == [b"fence"]
    assert [d.body for d in await earliest.until(2)] == [b"old", b"fence"]
    assert len(await keeper.until(2)) == 2


async def test_a_group_goes_on_where_it_stopped(connect: Connect, topic: str) -> None:
    first = await connect()
    reader = await first.read(topic)
    await first.publish(topic, b"0", b"1")
    await reader.until(2)
    await reader.ack_all()
    await first.transport.stop()
    second = await connect()
    await second.publish(topic, b"2")
    again = await second.read(topic, start=StartAt.NEW)
    await second.publish(topic, b"3")
    assert [d.body for d in await again.until(2)] == [b"2", b"3"]


async def test_each_group_gets_everything_and_one_member_of_it_each_message(
    connect: Connect, topic: str
) -> None:
    rigs = [await connect(), await connect()]
    readers = [await rig.read(topic, group) for group in ("a", "b") for rig in rigs]
    await rigs[0].publish(topic, *numbers(100))
    await rigs[0].until(lambda: sum(len(reader.got) for reader in readers) == 200)
    for pair in (readers[:2], readers[2:]):
        assert sorted(pair[0].bodies + pair[1].bodies) == sorted(numbers(100))
        assert all(reader.got for reader in pair)


async def test_subscribers_without_a_group_each_get_everything_and_leave_nothing_behind(
    connect: Connect, real_pulsar_server: PulsarServer, topic: str
) -> None:
    rig = await connect(service="a-service")
    readers = [await rig.read(topic, None, start=StartAt.NEW) for _ in range(2)]
    await rig.publish(topic, *numbers(5))
    for reader in readers:
        assert [d.body for d in await reader.until(5)] == numbers(5)
    path = topic.replace("://", "/") + "/subscriptions"
    present = real_pulsar_server.admin("GET", path)
    assert isinstance(present, list)
    assert len(present) == 2
    assert all(name.startswith("arc-a-service-") for name in present)
    for reader in readers:
        await reader.feed.close()
    assert real_pulsar_server.admin("GET", path) == []


async def test_nothing_comes_without_credit_and_never_more_than_was_granted(
    rig: Rig, topic: str
) -> None:
    reader = await rig.read(topic, credit=0, concurrency=25)
    await rig.publish_together(topic, numbers(300))
    outcome = 0
    for grant in (1, 2, 3, 50, 100, 144):
        reader.feed.grant(grant)
        outcome += grant
        await reader.until(outcome)
        await rig.transport.health()  # a round trip, in which more could have come
        assert len(reader.got) == outcome
    assert reader.bodies == numbers(300)


async def test_a_bounded_member_leaves_the_rest_to_others(connect: Connect, topic: str) -> None:
    rig = await connect({"batching": False})  # a batch goes to one member as a whole
    hoarder = await rig.read(topic, credit=2, concurrency=1, prefetch=2)
    await rig.publish(topic, *numbers(40))
    await hoarder.until(2)
    other = await rig.read(topic)
    await other.until(30)
    assert not set(hoarder.bodies) & set(other.bodies)


@pytest.mark.parametrize("kind", list(SubscriptionType))
async def test_unsettled_messages_come_again_after_close_whatever_the_type(
    connect: Connect, topic: str, kind: SubscriptionType
) -> None:
    rig = await connect({"batching": False})
    options = PulsarSubscription(type=kind)
    reader = await rig.read(topic, options=options)
    await rig.publish(topic, *numbers(6))
    await reader.until(6)
    for delivery in reader.got[::2]:
        await reader.feed.ack(delivery)
    await reader.feed.stop()
    await reader.feed.close()
    again = await rig.read(topic, options=options)
    await rig.publish(topic, b"fence")
    assert [d.body for d in await again.until(4)] == [b"1", b"3", b"5", b"fence"]


@pytest.mark.parametrize("kind", list(SubscriptionType))
async def test_a_nacked_message_comes_again_after_its_delay_and_no_neighbour_does(
    rig: Rig, topic: str, kind: SubscriptionType
) -> None:
    reader = await rig.read(topic, options={"type": kind.value})
    await rig.publish_together(topic, numbers(10))  # one batch
    await reader.until(10)
    loop = asyncio.get_running_loop()
    for delivery in reader.got[:5]:
        await reader.feed.ack(delivery)
    began = loop.time()
    await reader.feed.nack(reader.got[7], 0.4)
    await reader.feed.nack(reader.got[6], 0.2)
    await reader.until(12)
    assert loop.time() - began >= 0.4
    assert [(d.body, d.attempt) for d in reader.got[10:]] == [(b"6", 2), (b"7", 2)]
    await reader.feed.nack(reader.got[11])
    await reader.until(13)
    assert loop.time() - began >= 0.4 + NACK_FLOOR
    assert (reader.got[12].body, reader.got[12].attempt) == (b"7", 3)
    await reader.ack_all()
    await reader.feed.close()
    again = await rig.read(topic, options={"type": kind.value})
    await rig.publish(topic, b"fence")
    assert [d.body for d in await again.until(1)] == [b"fence"]


async def test_a_retry_has_headers_of_its_own(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    await rig.publish(topic, b"x")
    (first,) = await reader.until(1)
    await reader.feed.nack(first)
    _, second = await reader.until(2)
    assert second.headers == first.headers
    assert second.headers is not first.headers
    assert (second.id, second.verdict) == (first.id, None)


async def test_nacked_messages_use_credit_like_others(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic, credit=1)
    await rig.publish(topic, b"x")
    (first,) = await reader.until(1)
    await reader.feed.nack(first)
    await rig.until(lambda: len(cast("PulsarFeed", reader.feed)._ready) == 1)  # it is due again
    assert len(reader.got) == 1
    reader.feed.grant(1)
    await reader.until(2)


async def test_a_rejected_message_never_comes_again(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    await rig.publish(topic, b"bad", b"good")
    bad, _ = await reader.until(2)
    await reader.feed.reject(bad)
    await reader.feed.close()
    again = await rig.read(topic)
    assert b"bad" not in [d.body for d in await again.until(1)]


async def test_settling_twice_means_what_it_means_everywhere(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    await rig.publish(topic, b"0", b"1")
    first, second = await reader.until(2)
    await reader.feed.ack(first)
    await reader.feed.ack(first)
    with pytest.raises(AlreadySettled):
        await reader.feed.nack(first)
    await reader.feed.close()
    with pytest.raises(NotSettled, match="redelivery"):
        await reader.feed.ack(second)


async def test_an_ack_that_nobody_waits_for_counts_and_its_refusal_is_told(
    rig: Rig, topic: str
) -> None:
    reader = await rig.read(topic)
    await rig.publish(topic, *numbers(3))
    first, second, third = await reader.until(3)
    feed = reader.feed
    assert isinstance(feed, AcksSoon)
    refused: list[Exception] = []
    feed.ack_soon(first, refused.append)
    feed.ack_soon(first, refused.append)
    await feed.reject(second)
    feed.ack_soon(second, refused.append)
    await feed.close()
    feed.ack_soon(third, refused.append)
    assert [type(error) for error in refused] == [AlreadySettled, NotSettled]
    again = await rig.read(topic)
    assert [d.body for d in await again.until(1)] == [b"2"]


async def test_there_is_no_deadline_to_extend(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    await rig.publish(topic, b"x")
    (delivery,) = await reader.until(1)
    with pytest.raises(Unsupported):
        await reader.feed.extend(delivery)


async def test_after_stop_nothing_is_delivered_and_verdicts_still_count(
    rig: Rig, topic: str
) -> None:
    reader = await rig.read(topic, credit=1)
    await rig.publish(topic, *numbers(3))
    (running,) = await reader.until(1)
    await reader.feed.stop()
    reader.feed.grant(10)
    await rig.publish(topic, b"3")
    await rig.transport.health()
    assert len(reader.got) == 1
    await reader.feed.ack(running)
    await reader.feed.close()
    again = await rig.read(topic)
    assert [d.body for d in await again.until(3)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("last", ["ack", "nack"])
async def test_what_is_returned_at_stop_goes_to_another_member_before_close(
    connect: Connect, topic: str, last: str
) -> None:
    rig, other = await connect(), await connect()
    reader = await rig.read(topic)
    await rig.publish(topic, *numbers(3))
    running, *waiting = await reader.until(3)
    await reader.feed.stop()
    second = await other.read(topic)
    if last == "nack":
        await reader.feed.ack(running)
    for delivery in waiting:
        await reader.feed.nack(delivery)
    if last == "ack":
        await reader.feed.ack(running)
    # With the last verdict the consumer leaves, not with close().
    assert sorted(d.body for d in await second.until(2)) == [b"1", b"2"]


async def test_stop_and_close_are_idempotent_and_may_run_at_once(rig: Rig, topic: str) -> None:
    reader = await rig.read(topic)
    await asyncio.gather(
        reader.feed.stop(), reader.feed.close(), reader.feed.close(), reader.feed.stop()
    )
    await reader.feed.close()
    await asyncio.gather(rig.transport.stop(), rig.transport.stop())
    assert rig.kinds() == [NoticeKind.CONNECTED, NoticeKind.STOPPED]
    with pytest.raises(BusStopped):
        await rig.read(topic)


class Refusal:
    """A topic that the broker cannot load until `end()`: its ledger wants a bookie too many."""

    def __init__(self, server: PulsarServer, namespace: str) -> None:
        self.topic = f"persistent://{namespace}/t"
        self._server, self._namespace = server, namespace
        server.admin("PUT", f"namespaces/{namespace}")

    def begin(self) -> None:
        self._bookies(2)
        self._server.admin("PUT", f"persistent/{self._namespace}/t/unload")

    def end(self) -> None:
        self._bookies(1)

    def _bookies(self, count: int) -> None:
        names = ("bookkeeperEnsemble", "bookkeeperWriteQuorum", "bookkeeperAckQuorum")
        policy = dict.fromkeys(names, count) | {"managedLedgerMaxMarkDeleteRate": 0}
        self._server.admin("POST", f"namespaces/{self._namespace}/persistence", policy)


@pytest.fixture
async def refusal(
    rig: Rig, real_pulsar_server: PulsarServer, unique: Callable[..., str]
) -> Refusal:
    """Return a topic with a group `g`, which is refused to everybody."""
    refusal = Refusal(real_pulsar_server, f"arc/{unique('refused')}")
    reader = await rig.read(refusal.topic, "g")
    await rig.publish(refusal.topic, b"before")
    await reader.until(1)
    await reader.feed.close()
    refusal.begin()
    return refusal


async def test_a_group_that_is_refused_for_a_moment_is_asked_for_until_it_is_had(
    connect: Connect, refusal: Refusal
) -> None:
    # The library asks once: https://github.com/apache/pulsar-client-cpp/pull/577 is half of it.
    rig = await connect()
    reading = asyncio.create_task(rig.read(refusal.topic, "g"))
    await asyncio.sleep(0.5)
    assert not reading.done()
    refusal.end()
    async with asyncio.timeout(10.0):  # of the 30 that a request may take
        reader = await reading
        await reader.until(1)
    async with asyncio.timeout(2.0):  # what the library has not answered keeps nobody
        await rig.transport.stop()
    assert (rig.notices[-1].kind, rig.notices[-1].detail) == (NoticeKind.STOPPED, "")


async def test_a_group_that_is_refused_and_given_up_does_not_hold_up_the_end(
    connect: Connect, refusal: Refusal
) -> None:
    rig = await connect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await rig.read(refusal.topic, "g")
    async with asyncio.timeout(2.0):
        await rig.transport.stop()
    assert (rig.notices[-1].kind, rig.notices[-1].detail) == (NoticeKind.STOPPED, "")


async def test_a_connection_is_not_restored_before_the_broker_has_its_consumers_again(
    connect: Connect, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While it is only asked for, the library calls a consumer connected.
    monkeypatch.setattr(transport, "WATCH", 0.001)
    refusal.end()
    rig = await connect()
    reader = await rig.read(refusal.topic, "g")
    refusal.begin()
    await rig.until(lambda: NoticeKind.LOST in rig.kinds())
    await asyncio.sleep(2.0)
    assert rig.kinds() == [NoticeKind.CONNECTED, NoticeKind.LOST]
    refusal.end()
    await rig.until(lambda: NoticeKind.RESTORED in rig.kinds())
    await rig.publish(refusal.topic, b"after")
    await reader.until(2)
    assert rig.kinds() == [NoticeKind.CONNECTED, NoticeKind.LOST, NoticeKind.RESTORED]


@pytest.mark.parametrize("kind", list(SubscriptionType))
async def test_a_group_asked_for_many_times_has_one_consumer(
    rig: Rig,
    real_pulsar_server: PulsarServer,
    topic: str,
    kind: SubscriptionType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.0)
    reader = await rig.read(topic, "g", options=PulsarSubscription(type=kind))
    path = topic.replace("://", "/") + "/stats"

    def consumers() -> int:
        stats = cast("Any", real_pulsar_server.admin("GET", path))
        return len(stats["subscriptions"]["g"]["consumers"])

    await rig.until(lambda: consumers() == 1)
    await rig.publish_together(topic, numbers(100))
    await reader.until(100)
    assert sorted(reader.bodies) == sorted(numbers(100))


class Answers(list[Callable[[object], None]]):
    """A client library that is asked for consumers and answers when the test does."""

    class Error:
        def __init__(self, code: str) -> None:
            self.error = SimpleNamespace(name=code)
            self.message = ""

    def subscribe_async_v2(self, *given: object) -> None:
        self.append(cast("Callable[[object], None]", given[-1]))

    def get_topic_partitions_async(self, _topic: str, answer: Callable[..., None]) -> None:
        answer(SimpleNamespace(name="Ok"), [])


@pytest.mark.parametrize("last", ["had", "refused"])
async def test_an_exclusive_group_that_our_own_consumer_keeps_busy_is_not_refused(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broker answers the last one first, or whichever it likes.
    monkeypatch.setattr(client, "PATIENCE", 0.01)
    ours = client.PulsarClient("pulsar://127.0.0.1:1", PulsarOptions())
    library, settings = Answers(), vendor.load().ConsumerConfiguration()
    busy, had = Answers.Error("ConsumerBusy"), SimpleNamespace(close_async=lambda _: None)
    with monkeypatch.context() as pretend:
        pretend.setattr(ours, "_library", library)
        pretend.setattr(ours, "_client", library)
        opening = asyncio.create_task(ours.open_consumer("t", "g", settings))
        async with asyncio.timeout(5.0):
            while len(library) < 2:  # noqa: ASYNC110 - the library tells nobody
                await asyncio.sleep(0.001)
        library.pop(0)(busy)
        await asyncio.sleep(0.001)
        assert not opening.done()
        while library:
            library.pop()(busy if last == "refused" else had)
        if last == "had":
            assert await opening is had
        else:
            with pytest.raises(ConfigError, match="exclusively"):
                await opening
    assert await ours.close(5.0)


async def test_closing_one_subscription_leaves_the_others(rig: Rig, topic: str) -> None:
    closed, left = await rig.read(topic, "a"), await rig.read(topic, "b")
    await closed.feed.close()
    await rig.publish(topic, b"x")
    assert len(await left.until(1)) == 1
    assert closed.got == []


@pytest.mark.usefixtures("real_pulsar_server")
async def test_an_exclusive_group_admits_no_second_member(rig: Rig, topic: str) -> None:
    await rig.read(topic, options={"type": "exclusive"})
    with pytest.raises(ConfigError, match="exclusively, or with another"):
        await rig.read(topic, options={"type": "exclusive"})


@pytest.mark.usefixtures("real_pulsar_server")
async def test_members_of_different_types_are_refused(rig: Rig, topic: str) -> None:
    await rig.read(topic, options={"type": "shared"})
    with pytest.raises(ConfigError, match="type"):
        await rig.read(topic, order_by="key")


async def test_failover_gives_all_to_one_member_and_the_rest_to_the_next(
    connect: Connect, topic: str
) -> None:
    rig = await connect()
    readers = [await rig.read(topic, options={"type": "failover"}) for _ in range(2)]
    await rig.publish(topic, *numbers(10))
    await rig.until(lambda: any(len(reader.got) == 10 for reader in readers))
    active, standby = sorted(readers, key=lambda reader: -len(reader.got))
    assert standby.got == []
    await active.ack_all()
    await active.feed.close()
    await rig.publish(topic, b"next")
    assert [d.body for d in await standby.until(1)] == [b"next"]


async def test_a_bound_below_the_number_of_partitions_still_reads_all_of_them(
    rig: Rig, partitioned: str
) -> None:
    reader = await rig.read(partitioned, concurrency=1, prefetch=1)
    for number in range(16):
        await rig.publish(partitioned, b"%d" % number, key=f"k{number}")
    assert len(await reader.until(16)) == 16


async def test_order_by_gives_each_key_to_one_member_in_order(
    connect: Connect, partitioned: str
) -> None:
    rigs = [await connect(), await connect()]
    readers = [await rig.read(partitioned, order_by="key") for rig in rigs]
    keys = [f"key-{number}" for number in range(20)]
    for number in range(30):
        await asyncio.gather(
            *(rigs[0].publish(partitioned, b"%d" % number, key=key) for key in keys)
        )
    await rigs[0].until(lambda: sum(len(reader.got) for reader in readers) == 600)
    for key in keys:
        per_reader = [[d.body for d in reader.got if d.key == key] for reader in readers]
        assert sorted(per_reader, key=len) == [[], numbers(30)]
    assert all(reader.got for reader in readers)


async def test_keys_of_one_producer_never_share_a_batch(connect: Connect, topic: str) -> None:
    # Were they to, KeyShared would give the batch to the reader of its first message's key.
    rig = await connect({"batching_delay": 0.1})
    readers = [await rig.read(topic, order_by="key") for _ in range(2)]
    keys = [f"key-{number}" for number in range(20)]
    await asyncio.gather(
        *(rig.publish(topic, b"%d" % number, key=key) for number in range(5) for key in keys)
    )
    await rig.until(lambda: sum(len(reader.got) for reader in readers) == 100)
    first, second = ({d.key for d in reader.got} for reader in readers)
    assert first
    assert second
    assert first | second == set(keys)
    assert not first & second


async def test_pending_is_the_backlog_where_the_admin_api_is_known(
    connect: Connect, real_pulsar_server: PulsarServer, topic: str, partitioned: str
) -> None:
    blind, seeing = await connect(), await connect({"admin_url": real_pulsar_server.admin_url})
    assert await (await blind.read(topic, credit=0)).feed.pending() is None
    for name in (topic, partitioned):
        reader = await seeing.read(name, credit=0)
        await seeing.publish(name, *numbers(5))
        assert await reader.feed.pending() == 5


async def test_properties_of_other_publishers_become_headers(
    rig: Rig, pulsar_server: AnyPulsar, topic: str
) -> None:
    reader = await rig.read(topic)

    def publish() -> None:
        client = pulsar.Client(pulsar_server.url, logger=pulsar.FileLogger(LEVEL, os.devnull))
        client.create_producer(topic).send(b"b", {"Mixed-Case": "v", "message_id": "m"}, "key")
        client.close()

    await asyncio.to_thread(publish)
    (delivery,) = await reader.until(1)
    assert (delivery.headers, delivery.id, delivery.key) == ({"mixed-case": "v"}, "m", "key")


async def test_properties_that_are_not_text_cost_the_headers_and_not_the_message(
    rig: Rig, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No client in Python can send them, so the library's message is one that fails as it does.
    class Foreign:
        def __init__(self, message: vendor.Message) -> None:
            self._message = message

        def __getattr__(self, name: str) -> object:
            return getattr(self._message, name)

        def properties(self) -> dict[str, str]:
            return {"x": b"\xff".decode()}

    def foreign(message: vendor.Message) -> vendor.Message:
        return cast("vendor.Message", Foreign(message))

    reader = await rig.read(topic)
    intake = cast("PulsarFeed", reader.feed)._intake
    assert intake is not None
    arrived = intake._arrived
    monkeypatch.setattr(intake, "_arrived", lambda got: arrived(list(map(foreign, got))))
    await rig.publish(topic, b"body")
    (delivery,) = await reader.until(1)
    assert (delivery.body, delivery.headers, delivery.id) == (b"body", {}, None)
    (notice,) = [notice for notice in rig.notices if notice.kind is NoticeKind.ERROR]
    assert (notice.count, notice.pattern) == (1, topic)
    assert "UTF-8" in notice.detail
    await reader.feed.ack(delivery)
