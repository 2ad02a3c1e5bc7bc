"""Servers live side by side, and none outlives the process that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from arc_bus import servers
from arc_bus.servers import ServerError, nats_server
from arc_bus.servers.ports import Port

pytestmark = pytest.mark.server

needs_pulsar = pytest.mark.skipif(
    not servers.pulsar_available() and os.environ.get("CI") != "true", reason=servers.why_not()
)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come about in time"
        time.sleep(0.01)  # the pace of the question; the deadline is above


def _another(_: int) -> servers.NatsServer:
    return nats_server()


class TestSideBySide:
    def test_ports_are_reserved_for_a_server_that_is_down(self) -> None:
        with nats_server() as server:
            server.kill()
            with pytest.raises(ServerError, match="in use"):
                Port(server.port)

    def test_many_servers_at_once_have_ports_of_their_own(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            # The threads end before their servers do: a server must not die with its starter.
            running = list(threads.map(_another, range(8)))
        try:
            assert len({server.port for server in running}) == 8
            assert all(server.monitor("/varz")["port"] == server.port for server in running)
        finally:
            for server in running:
                server.stop()

    async def test_starts_beside_a_running_event_loop(self) -> None:
        server = await asyncio.to_thread(nats_server)
        assert server.monitor("/varz")["port"] == server.port
        await asyncio.to_thread(server.stop)


ORPHANS = """
import sys
from arc_bus.servers import nats_server, postgres_server, pulsar_lite_server, pulsar_server
starts = {"nats": nats_server, "postgres": postgres_server, "lite": pulsar_lite_server,
          "pulsar": pulsar_server}
running = [starts[name]() for name in sys.argv[1:]]
for server in running:
    print(server.pid, server.folder, flush=True)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def parent_of(*names: str) -> Generator[tuple[subprocess.Popen[str], list[int], list[Path]]]:
    """A process that has started the named servers, their process ids and folders."""
    command = [sys.executable, "-c", ORPHANS, *names]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        lines = [line.split() for line in iter(parent.stdout.readline, "ready\n") if line]
        try:
            yield parent, [int(line[0]) for line in lines], [Path(line[1]) for line in lines]
        finally:
            parent.kill()


class TestOrphans:
    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None], ids=str)
    def test_no_server_outlives_its_parent(self, end: signal.Signals | None) -> None:
        with parent_of("nats", "postgres", "lite") as (parent, pids, folders):
            workers = [child.pid for pid in pids for child in psutil.Process(pid).children()]
            assert workers, "PostgreSQL has workers"
            if end is None:
                assert parent.stdin is not None
                parent.stdin.close()  # it ends by itself, without stop()
            else:
                parent.send_signal(end)
            until(lambda: not any(psutil.pid_exists(pid) for pid in pids + workers))
            until(lambda: not any(folder.exists() for folder in folders))

    @needs_pulsar
    def test_java_does_not_outlive_its_parent(self) -> None:
        with parent_of("pulsar") as (parent, pids, folders):
            parent.kill()
            until(lambda: not psutil.pid_exists(pids[0]))
            until(lambda: not folders[0].exists())

    def test_paused_server_does_not_outlive_its_parent(self) -> None:
        with parent_of("nats") as (parent, pids, _):
            os.kill(pids[0], signal.SIGSTOP)
            parent.kill()
            until(lambda: not psutil.pid_exists(pids[0]))

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing can")
    def test_server_dies_with_its_supervisor(self) -> None:
        with nats_server() as server:
            supervisor = psutil.Process(server.pid).parent()
            assert supervisor is not None
            supervisor.kill()
            until(lambda: not server.alive)
            server.restart()
            assert server.alive

    def test_ctrl_c_reaches_us_and_not_the_servers(self) -> None:
        with nats_server() as server:
            assert os.getpgid(server.pid) != os.getpgid(0)
            assert os.getsid(server.pid) != os.getsid(0)
