"""Start, stop, and every way in which a process may end: the client library must not take it along.

Each test of an ending runs in a process of its own, because what it must show is an exit code.
"""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from arc_bus.errors import BusStopped, ConnectFailed
from arc_bus.notice import NoticeKind
from arc_bus.servers.ports import Port
from arc_bus.transport import Endpoint
from arc_pulsar import vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.transport import PulsarTransport

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import (  # noqa: TID251 - types only
        AnyPulsar,
        Connect,
        Rig,
    )

ROOT = Path(__file__).parents[3]
RUNS = 50

PRELUDE = """
import asyncio, atexit, gc, os, signal, sys
from arc_bus.policy import Subscription
from arc_bus.transport import Endpoint, Outgoing, StartAt
from arc_pulsar import vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.transport import PulsarTransport

url, topic = sys.argv[1:]
transport = PulsarTransport(Endpoint(url=url))
got = []

async def use():
    await transport.start()
    feed = await transport.subscribe(Subscription(pattern=topic, group="g"), got.extend)
    feed.grant(100)
    await transport.publish(Outgoing(topic, b"x", {}, "id"))
    while not got:
        await asyncio.sleep(0.001)
    return feed
"""


def run(script: str, url: str, topic: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `script` after the prelude in a process; stderr must stay empty whatever happens."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "plugins")))
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-X",
            "faulthandler",
            "-c",
            PRELUDE + textwrap.dedent(script),
            url,
            topic,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": paths},
    )


def clean(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_hazard_9_processes_that_stop_in_good_order_end_with_exit_code_0(
    pulsar_server: AnyPulsar, topic: str
) -> None:
    script = """
        async def main():
            feed = await use()
            await feed.ack(got[0])
            await transport.stop()
        asyncio.run(main())
    """
    for number in range(8):
        name = f"{topic}-{number}"
        clean(await asyncio.to_thread(run, script, pulsar_server.url, name))


async def test_hazard_9_fifty_starts_and_stops_end_with_exit_code_0(
    pulsar_server: AnyPulsar, topic: str
) -> None:
    script = f"""
        async def main():
            global transport
            for _ in range({RUNS}):
                got.clear()
                transport = PulsarTransport(Endpoint(url=url))
                feed = await use()
                await transport.stop()
        asyncio.run(main())
    """
    clean(await asyncio.to_thread(run, script, pulsar_server.url, topic))


@pytest.mark.parametrize(
    "ending",
    [
        "asyncio.run(use())",  # never stopped, a receive pending
        """
        async def main():  # the loop ends with publishes under way
            await use()
            for number in range(1000):
                asyncio.ensure_future(transport.publish(Outgoing(topic, b"x" * 500, {}, "i")))
            await asyncio.sleep(0)
        asyncio.run(main())
        """,
        """
        async def main():  # callbacks come while nobody is there to take them
            await use()
            for number in range(1000):
                transport._producers[topic].submit(Outgoing(topic, b"x" * 500, {}, "i"), 500)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        import time; time.sleep(1)
        """,
        """
        async def main():  # collected without a stop
            await use()
        asyncio.run(main())
        import gc
        del transport
        gc.collect()
        """,
        """
        async def main():
            await use()
            sys.exit(0)
        asyncio.run(main())
        """,
    ],
)
async def test_hazard_9_a_process_that_ends_without_stop_ends_with_exit_code_0(
    pulsar_server: AnyPulsar, topic: str, ending: str
) -> None:
    # Without the wait for the library's callbacks, a quarter of such processes abort.
    for number in range(4):
        name = f"{topic}-{number}"
        clean(await asyncio.to_thread(run, textwrap.dedent(ending), pulsar_server.url, name))


async def test_hazard_9_a_forked_child_is_refused_and_both_processes_end(
    pulsar_server: AnyPulsar, topic: str
) -> None:
    script = """
        from arc_bus.errors import BusStopped
        async def main():
            feed = await use()
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    await transport.publish(Outgoing(topic, b"y", {}, "id"))
                except BusStopped as error:
                    os._exit(0 if "fork" in str(error) else 3)
                os._exit(4)
            assert os.waitpid(child, 0)[1] == 0
            child = os.fork()
            if child == 0:  # not sys.exit: closing the loop would close the parent's epoll
                signal.alarm(20)
                globals().pop("transport")
                del feed
                gc.collect()
                atexit._run_exitfuncs()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            await transport.publish(Outgoing(topic, b"z", {}, "id"))
            await transport.stop()
        asyncio.run(main())
    """
    clean(await asyncio.to_thread(run, script, pulsar_server.url, topic))


async def test_hazard_9_a_forked_child_that_drops_its_parents_client_does_not_hang(
    pulsar_server: AnyPulsar, topic: str
) -> None:
    # One that only publishes: with a receive under way, the library itself holds on to it.
    script = """
        async def main():
            await transport.start()
            await transport.publish(Outgoing(topic, b"x", {}, "id"))
        asyncio.run(main())
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            globals().pop("transport")
            atexit._run_exitfuncs()
            gc.collect()
            os._exit(0)
        sys.exit(os.waitpid(child, 0)[1])
    """
    clean(await asyncio.to_thread(run, script, pulsar_server.url, topic))


class Goodbye:
    """A client of the library that notes when it is closed."""

    def __init__(self, client: vendor.Client) -> None:
        self.said = 0
        self._client = client

    def close_async(self, callback: vendor.OnResult) -> None:
        self.said += 1
        self._client.close_async(callback)


def watched(rig: Rig) -> tuple[PulsarClient, Goodbye]:
    """Return the transport's client, and what counts how often it is closed."""
    client = rig.transport._client
    assert client is not None
    goodbye = Goodbye(client._client)
    client._client = cast("vendor.Client", goodbye)
    return client, goodbye


async def test_the_library_may_tell_of_what_has_ended_before_its_threads_are(rig: Rig) -> None:
    # On a busy machine a receive whose consumer was closed was told of by nobody, for ten seconds.
    client, goodbye = watched(rig)
    untold = client.bridge.callback(print)
    stopping = asyncio.create_task(rig.transport.stop())
    for _ in range(10):
        await asyncio.sleep(0)
    assert goodbye.said == 0
    del untold
    await stopping
    assert goodbye.said == 1
    assert [notice.detail for notice in rig.notices] == ["", ""]


async def test_what_the_library_never_tells_of_keeps_no_client_open(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arc_pulsar.transport.LAST_WORDS", 0.1)
    monkeypatch.setattr("arc_pulsar.transport.STOP_DEADLINE", 0.2)
    client, goodbye = watched(rig)
    untold = client.bridge.callback(print)
    await rig.transport.stop()
    assert goodbye.said == 1
    assert "did not confirm" in rig.notices[-1].detail
    del untold
    assert await client.close(10)


async def test_starting_without_a_server_fails_soon_and_names_the_address_and_the_remedy() -> None:
    port = Port()
    transport = PulsarTransport(Endpoint(url=f"pulsar://127.0.0.1:{port.number}"))
    try:
        async with asyncio.timeout(5):
            with pytest.raises(ConnectFailed, match=rf":{port.number}: .*check the address"):
                await transport.start()
        assert "not started" in (await transport.health() or "")
    finally:
        await transport.stop()
        port.release()


async def test_starting_against_something_mute_fails_within_the_time_given() -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_client.append(writer)

    with_client: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = PulsarTransport(Endpoint(url=f"pulsar://127.0.0.1:{port}?connect_timeout=0.5"))
    try:
        with pytest.raises(ConnectFailed, match="no answer within"):
            await transport.start()
    finally:
        for writer in with_client:
            writer.close()
        server.close()
        await transport.stop()


async def test_a_second_address_serves_when_the_first_does_not(
    connect: Connect, pulsar_server: AnyPulsar, topic: str
) -> None:
    port = Port()
    try:
        hosts = pulsar_server.url.partition("://")[2]
        rig = await connect(url=f"pulsar://127.0.0.1:{port.number},{hosts}")
        reader = await rig.read(topic)
        await rig.publish(topic, b"x")
        await reader.until(1)
    finally:
        port.release()


async def test_health_is_a_round_trip(rig: Rig) -> None:
    assert await rig.transport.health() is None
    await rig.transport.stop()
    assert "stopped" in (await rig.transport.health() or "")


async def test_using_it_before_start_is_an_error(pulsar_server: AnyPulsar) -> None:
    transport = PulsarTransport(Endpoint(url=pulsar_server.url))
    with pytest.raises(BusStopped, match="not started"):
        await transport.flush()
    await transport.stop()


async def test_start_twice_is_one_start(rig: Rig) -> None:
    await rig.transport.start()
    assert rig.kinds() == [NoticeKind.CONNECTED]
