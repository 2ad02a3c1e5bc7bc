"""A broker that is frozen, killed or restarted, and readers and writers that are killed."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arc_bus.errors import ConnectionLost, PublishUnconfirmed
from arc_bus.notice import NoticeKind
from arc_bus.servers import PulsarServer
from arc_pulsar import feed, transport

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        AnyPulsar,
        Connect,
        Rig,
    )

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def fragile(fragile_pulsar_server: PulsarServer) -> PulsarServer:
    """An Apache Pulsar that may be killed, running."""
    if not fragile_pulsar_server.alive:
        await asyncio.to_thread(fragile_pulsar_server.start)
    return fragile_pulsar_server


@pytest.fixture
async def frozen(fragile: PulsarServer) -> AsyncGenerator[Callable[[], None]]:
    """Return what freezes the broker; it is thawed at the end."""
    yield fragile.pause
    fragile.resume()


class Heart:
    """Beats a hundred times a second as long as the loop lets it; `longest` it did not, seconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - before)


async def test_hazard_8_receives_that_were_given_up_eat_no_message(rig: Rig, topic: str) -> None:
    for _ in range(3):  # each leaves a receive behind that nobody waits for any more
        reader = await rig.read(topic)
        await reader.feed.stop()
        await reader.feed.close()
    kept = await rig.read(topic)
    await kept.feed.stop()  # its receive stays pending in the library ...
    reader = await rig.read(topic)
    await rig.publish(topic, *(b"%d" % number for number in range(5)))
    await kept.feed.close()
    await reader.until(5)  # ... and what it took comes back
    assert sorted(reader.bodies) == [b"0", b"1", b"2", b"3", b"4"]


async def test_hazard_18_a_failing_message_takes_nobody_with_it_on_any_type(
    connect: Connect, topic: str
) -> None:
    # The library's own nack redelivers the whole batch, and on Failover all that is unsettled.
    rig = await connect({"batching_delay": 0.1})
    for kind in ("shared", "key_shared", "failover", "exclusive"):
        name = f"{topic}-{kind}"
        reader = await rig.read(name, options={"type": kind})
        await rig.publish_together(name, [b"%d" % number for number in range(50)])
        await reader.until(50)
        for _ in range(3):
            await reader.feed.nack(reader.got[-1], 0.0)
            await reader.until(len(reader.got) + 1)
        assert len(reader.got) == 53
        assert [d.attempt for d in reader.got[50:]] == [2, 3, 4]
        assert {d.body for d in reader.got[50:]} == {b"49"}


async def test_hazard_19_replicas_and_fast_restarts_never_collide_on_a_producer_name(
    connect: Connect, pulsar_server: AnyPulsar, topic: str
) -> None:
    first, second = await connect(), await connect()
    reader = await first.read(topic)
    await asyncio.gather(first.publish(topic, b"1"), second.publish(topic, b"2"))
    child = publish_forever(pulsar_server.url, topic)
    await reader.until(10)
    child.kill()  # its connection may live on at the broker for a while
    await asyncio.to_thread(child.communicate)
    again = publish_forever(pulsar_server.url, topic)
    count = len(reader.got)
    await reader.until(count + 10)
    again.kill()
    await asyncio.to_thread(again.communicate)


async def test_hazard_19_publishing_an_id_again_is_a_second_delivery(rig: Rig, topic: str) -> None:
    assert rig.transport.capabilities.publish_dedup is None
    reader = await rig.read(topic)
    await rig.publish(topic, b"same", key="k")
    await rig.publish(topic, b"same", key="k")
    first, second = await reader.until(2)
    assert first.id == second.id


async def test_hazard_20_a_frozen_broker_freezes_no_loop_and_every_publish_gets_an_answer(
    connect: Connect, fragile: PulsarServer, frozen: Callable[[], None], topic: str
) -> None:
    rig = await connect({"max_pending": 10, "send_timeout": 3.0}, url=fragile.url)
    reader = await rig.read(topic)
    await rig.publish_together(topic, [b"before"] * 5)
    first, *rest = await reader.until(5)
    frozen()
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    sends = [asyncio.ensure_future(rig.publish(topic, b"%d" % n)) for n in range(30)]
    await reader.feed.nack(first)
    for delivery in rest:
        await reader.feed.ack(delivery)
    results = await asyncio.gather(*sends, return_exceptions=True)
    beating.cancel()
    # The library's own way to wait for room blocks its caller until the first time-out.
    assert heart.longest < 3.0
    kinds = [type(result) for result in results]
    assert kinds[:10] == [PublishUnconfirmed] * 10  # sent, and nobody knows
    assert set(kinds[10:]) <= {ConnectionLost, PublishUnconfirmed}
    assert kinds[-1] is ConnectionLost  # it never left this process
    fragile.resume()
    await publish_at_last(rig, topic, b"after")
    await rig.until(lambda: b"after" in reader.bodies)
    assert not set(reader.bodies) & {
        b"%d" % n for n, kind in enumerate(kinds) if kind is ConnectionLost
    }


async def test_stop_against_a_frozen_broker_ends_in_time_and_says_so(
    connect: Connect,
    fragile: PulsarServer,
    frozen: Callable[[], None],
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "STOP_DEADLINE", 3.0)
    monkeypatch.setattr(feed, "CLOSE_DEADLINE", 1.0)
    rig = await connect(url=fragile.url)
    await rig.read(topic)
    await rig.publish(topic, b"x")
    frozen()
    pending = asyncio.ensure_future(rig.publish(topic, b"y"))
    await asyncio.sleep(0)
    async with asyncio.timeout(8):
        await rig.transport.stop()
    with pytest.raises(PublishUnconfirmed):
        await pending
    assert "did not confirm" in rig.notices[-1].detail
    assert any("acknowledgements may be lost" in notice.detail for notice in rig.notices)


async def test_a_process_that_stops_against_a_frozen_broker_ends_with_exit_code_0(
    fragile: PulsarServer, frozen: Callable[[], None], topic: str
) -> None:
    script = """
import asyncio, sys
from arc_bus.policy import Subscription
from arc_bus.transport import Endpoint, Outgoing
from arc_pulsar import transport
transport.STOP_DEADLINE = 2.0

async def main():
    url, topic = sys.argv[1:]
    ours = transport.PulsarTransport(Endpoint(url=url))
    await ours.start()
    feed = await ours.subscribe(Subscription(pattern=topic, group="g"), lambda batch: None)
    feed.grant(10)
    await ours.publish(Outgoing(topic, b"x", {}, "id"))
    print("ready", flush=True)
    sys.stdin.readline()
    await ours.stop()

asyncio.run(main())
"""
    child = python(script, fragile.url, topic)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == b"ready\n"
    frozen()
    _, problems = await asyncio.to_thread(child.communicate, b"stop\n", 60)
    assert (child.returncode, problems) == (0, b"")


async def test_health_tells_of_a_frozen_broker(
    connect: Connect,
    fragile: PulsarServer,
    frozen: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "HEALTH_DEADLINE", 0.5)
    rig = await connect(url=fragile.url)
    frozen()
    assert "no answer" in (await rig.transport.health() or "")
    fragile.resume()


@pytest.mark.parametrize("confirm", ["each", "group"])
@pytest.mark.timeout(240)
async def test_a_killed_broker_loses_nothing_confirmed_and_everything_goes_on(
    connect: Connect, fragile: PulsarServer, topic: str, confirm: str
) -> None:
    options = {"send_timeout": 90.0, "confirm": confirm, "max_pending": 500}
    rig = await connect(options, url=fragile.url)
    reader = await rig.read(topic, credit=1_000_000)
    confirmed: set[bytes] = set()
    enough = asyncio.Event()

    async def publish(worker: int) -> None:
        number = 0
        while not enough.is_set():
            body = b"%d:%d" % (worker, number)
            number += 1
            try:
                await rig.publish(topic, body)
            except (ConnectionLost, PublishUnconfirmed):
                continue
            confirmed.add(body)

    workers = [asyncio.create_task(publish(worker)) for worker in range(20)]
    await reader.until(200)
    await asyncio.to_thread(fragile.kill)
    before = len(confirmed)
    await asyncio.to_thread(fragile.start)
    await rig.until(lambda: len(confirmed) >= before + 500, timeout=90)
    enough.set()
    await asyncio.gather(*workers)
    await rig.transport.flush()
    await rig.until(lambda: confirmed <= set(reader.bodies), timeout=60)
    await rig.until(lambda: rig.kinds()[-1] is NoticeKind.RESTORED)
    assert rig.kinds() == [NoticeKind.CONNECTED, NoticeKind.LOST, NoticeKind.RESTORED]


async def test_a_client_without_producers_and_readers_notices_a_silent_broker_too(
    connect: Connect, fragile: PulsarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WATCH", 0.05)
    monkeypatch.setattr(transport, "PING", 0.05)
    monkeypatch.setattr(transport, "HEALTH_DEADLINE", 1.0)
    rig = await connect(url=fragile.url)
    fragile.pause()
    try:
        await rig.until(lambda: rig.kinds()[-1] is NoticeKind.LOST)
    finally:
        fragile.resume()
    await rig.until(lambda: rig.kinds()[-1] is NoticeKind.RESTORED)
    assert rig.kinds() == [NoticeKind.CONNECTED, NoticeKind.LOST, NoticeKind.RESTORED]


@pytest.mark.timeout(240)
async def test_what_is_being_handled_while_the_broker_restarts_is_not_delivered_again(
    connect: Connect, fragile: PulsarServer, topic: str
) -> None:
    rig = await connect({"send_timeout": 90.0, "batching": False}, url=fragile.url)
    reader = await rig.read(topic)
    await rig.publish(topic, *(b"%d" % number for number in range(20)))
    await reader.until(20)
    for delivery in reader.got[:10]:
        await reader.feed.nack(delivery, 3600.0)
    await asyncio.to_thread(fragile.kill)
    await asyncio.to_thread(fragile.start)
    await publish_at_last(rig, topic, b"fence")
    await reader.until(21, timeout=90)
    assert reader.bodies[20:] == [b"fence"]
    for delivery in reader.got[10:]:
        await reader.feed.ack(delivery)
    await reader.feed.close()
    again = await rig.read(topic)
    assert sorted(int(d.body) for d in await again.until(10)) == list(range(10))
    await rig.publish(topic, b"end")
    assert (await again.until(11))[-1].body == b"end"


async def test_a_reader_killed_before_its_verdict_leaves_the_message_to_others(
    rig: Rig, pulsar_server: AnyPulsar, topic: str
) -> None:
    script = """
import asyncio, sys
from arc_bus.policy import Subscription
from arc_bus.transport import Endpoint, StartAt
from arc_pulsar.transport import PulsarTransport

async def main():
    url, topic = sys.argv[1:]
    ours = PulsarTransport(Endpoint(url=url))
    await ours.start()
    wanted = Subscription(pattern=topic, group="group", start=StartAt.EARLIEST)
    feed = await ours.subscribe(wanted, lambda batch: print(len(batch), flush=True))
    feed.grant(10)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    keeper = await rig.read(topic, "keeper")
    await rig.publish(topic, b"x")
    await keeper.until(1)
    child = python(script, pulsar_server.url, topic)
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == b"1\n"
    child.kill()
    await asyncio.to_thread(child.communicate)
    reader = await rig.read(topic)
    (delivery,) = await reader.until(1)
    assert delivery.body == b"x"


async def publish_at_last(rig: Rig, topic: str, body: bytes) -> None:
    """Publish until it is confirmed."""
    async with asyncio.timeout(90):
        while True:
            try:
                await rig.publish(topic, body)
            except (ConnectionLost, PublishUnconfirmed):
                continue
            return


def python(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "plugins")))
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )


def publish_forever(url: str, topic: str) -> subprocess.Popen[bytes]:
    return python(
        """
import asyncio, sys
from arc_bus.transport import Endpoint, Outgoing
from arc_pulsar.transport import PulsarTransport

async def main():
    url, topic = sys.argv[1:]
    ours = PulsarTransport(Endpoint(url=url))
    await ours.start()
    while True:
        await ours.publish(Outgoing(topic, b"x", {}, "id"))

asyncio.run(main())
""",
        url,
        topic,
    )
