"""What of nats-py is relied on: one private name, and how its client goes about the handshake."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client
from nats.aio.transport import Transport

from arc_bus import servers
from arc_bus.errors import ConnectFailed
from arc_bus.transport import Endpoint
from arc_nats.core import CoreTransport
from arc_nats.options import NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import CoreMaker, Fake  # noqa: TID251 - types only

PLUGIN = Path(__file__).parents[3] / "plugins" / "arc_nats"


def test_the_version_is_the_one_that_was_tried() -> None:
    assert version("nats-py").startswith("2.16.")


def test_one_private_name_of_nats_py_is_used_and_exists() -> None:
    """The plugin's source names no other, and a client uses a transport that it was given."""
    used = set(re.findall(r"client\.(_\w+)", (PLUGIN / "handshake.py").read_text()))
    assert used == {"_transport"}
    assert hasattr(Client(), "_transport")
    assert "if not self._transport:" in inspect.getsource(Client._connect_to_server)
    for path in PLUGIN.glob("*.py"):
        if path.name != "handshake.py":
            assert not re.search(r"^(from|import) nats\b", path.read_text(), re.M), path.name


def test_every_method_of_nats_pys_transport_is_ours() -> None:
    from arc_nats.handshake import _Line

    for name in Transport.__abstractmethods__:
        assert getattr(_Line, name) is not getattr(Transport, name)


async def test_nats_py_leaves_no_task_behind(core: CoreMaker) -> None:
    with servers.nats_server(jetstream=False) as server:
        before = asyncio.all_tasks()
        await core(server.url)
        started = asyncio.all_tasks() - before
        assert [task.get_coro().__qualname__ for task in started] == [  # type: ignore[union-attr]
            "Connection._keep"
        ]


async def test_a_stopped_transport_leaves_no_task_and_no_socket() -> None:
    with servers.nats_server() as server:
        before = asyncio.all_tasks()
        for _ in range(5):
            transport = CoreTransport(Endpoint(url=server.url))
            await transport.start()
            await transport.stop()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("greeting", [b"", b"HELLO", b"{", b'{"max_payload":"x"}', b"\xff"])
async def test_a_server_that_speaks_something_else_is_an_error(fake: Fake, greeting: bytes) -> None:
    fake.info = greeting
    transport = CoreTransport(Endpoint(url=fake.url, options=NatsOptions(connect_timeout=0.5)))
    if greeting == b'{"max_payload":"x"}':
        # nats-py takes it; what we cannot read of it stays as it was before.
        await transport.start()
        await transport.stop()
        return
    with pytest.raises(ConnectFailed, match=re.escape(fake.url.removeprefix("nats://"))):
        await transport.start()


def test_importing_the_plugin_loads_no_client_library() -> None:
    code = "import sys, arc_nats; arc_nats.arc_transports(); sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_library_names_the_extra() -> None:
    code = """
import sys
sys.modules["nats"] = None
import arc_nats
from arc_bus.errors import MissingExtra
from arc_bus.transport import Endpoint
for factory in arc_nats.arc_transports().values():
    try:
        factory(Endpoint(url="nats://h"))
    except MissingExtra as error:
        assert "pip install 'arc-bus[nats]'" in str(error), error
    else:
        raise AssertionError("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
