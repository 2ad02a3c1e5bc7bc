"""What an orchestrator is told: ready, live, and why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from arc_bus import Bus, Check, Config, servers
from arc_bus.errors import ConfigError
from arc_bus.health import STALLED_AFTER
from arc_bus.hookspecs import hookimpl
from arc_bus.probes import Probes, is_live
from arc_inmemory.feed import MemoryFeed

Payload = dict[str, object]


async def ask(port: int, path: str, request: str = "GET") -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status = int(head.split(b" ")[1])
    return status, json.loads(body) if b"application/json" in head else {}


async def until(port: int, path: str, status: int) -> dict[str, Any]:
    """Ask until the answer has `status`; the test's time-out is the limit."""
    while True:
        found, told = await ask(port, path)
        if found == status:
            return told


async def test_a_bus_that_runs_is_ready_and_live_and_tells_its_numbers() -> None:
    probes = Probes("127.0.0.1:0")
    bus = Bus("brain", {"": "memory://"}, plugins=[probes])
    done = asyncio.Event()

    @bus.subscribe("a.b", group="g")
    async def handle(payload: Payload) -> None:
        done.set()

    async with bus:
        await bus.publish("a.b", {})
        await done.wait()
        status, told = await ask(probes.port, "/health/ready?verbose=1")
        assert (status, told["status"], told["service"]) == (200, "up", "brain")
        facts = told["checks"][1]["facts"]
        assert facts["group"] == "g"
        assert (facts["received"], facts["lag"], facts["lost"]) == (1, 0, 0)
        assert facts["consuming"] is True
        assert (await ask(probes.port, "/health/live"))[0] == 200
        assert (await ask(probes.port, "/other"))[0] == 404
        assert (await ask(probes.port, "/health/ready", "POST"))[0] == 404
    with pytest.raises(OSError, match="onnect"):
        await ask(probes.port, "/health/live")


async def test_a_stopped_subscription_and_a_plugin_that_is_ill_are_not_ready() -> None:
    class Ill:
        ill = True

        @hookimpl
        def arc_health(self, bus: Bus) -> list[Callable[[], Awaitable[Check]]]:
            async def check() -> Check:
                if self.ill:
                    raise LookupError("no disk")
                return Check(name="disk", ok=True)

            return [check]

    probes, ill = Probes("127.0.0.1:0"), Ill()
    bus = Bus("s", {"": "memory://"}, plugins=[probes, ill])

    async def handle(payload: Payload) -> None: ...

    bus.subscribe("a.b", handle)
    async with bus:
        status, told = await ask(probes.port, "/health/ready")
        assert status == 503
        assert told["checks"][-1]["detail"] == "LookupError: no disk"
        ill.ill = False
        assert (await ask(probes.port, "/health/ready"))[0] == 200


@pytest.mark.virtual_time
async def test_a_subscription_that_receives_nothing_while_messages_wait_has_stalled() -> None:
    """Red on live as well: its connection is open, and nothing but a restart would mend it."""
    bus = Bus("s", {"": "memory://"})
    got = asyncio.Event()

    async def handle(payload: Payload) -> None:
        got.set()

    subscribed = bus.subscribe("a.b", handle, group="g")
    async with bus:
        assert subscribed._consumer is not None
        feed = subscribed._consumer._feed
        assert isinstance(feed, MemoryFeed)
        feed.credit = 0  # as if the broker had forgotten what it was granted
        await bus.publish("a.b", {})
        assert (await subscribed.health()).ok
        await asyncio.sleep(STALLED_AFTER + 1)
        (_, check) = await bus.health()
        assert not check.ok
        assert check.detail.startswith("stalled: 1 wait")
        assert not is_live([check])
        feed.grant(1)
        await got.wait()
        check = await subscribed.health()
        assert check.ok
        assert is_live([check])


async def test_a_frozen_broker_turns_ready_red_inside_three_pings_and_green_again() -> None:
    ping = 1.0
    with servers.nats_server() as server:
        probes = Probes("127.0.0.1:0")
        url = f"{server.url}?ping_interval={ping}"
        bus = Bus("s", {"a.": url, "dead.": url}, plugins=[probes])

        async def handle(payload: Payload) -> None: ...

        bus.subscribe("a.b", handle)
        async with bus:
            assert (await ask(probes.port, "/health/ready"))[0] == 200
            server.pause()
            async with asyncio.timeout(3 * ping):
                told = await until(probes.port, "/health/ready", 503)
            assert not told["checks"][0]["ok"]
            assert (await ask(probes.port, "/health/live"))[0] == 200
            server.resume()
            await until(probes.port, "/health/ready", 200)


@pytest.mark.parametrize(
    ("place", "settings", "says"),
    [
        (None, {}, "give their place"),
        (None, {"probes": {"port": 1}}, "unknown port"),
    ],
)
def test_probes_without_a_place_are_refused(
    place: str | None, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Bus.of(Config(plugins=[Probes(place)], settings=settings))


@pytest.mark.parametrize("place", ["nowhere", "127.0.0.1:99999", "127.0.0.1:x"])
async def test_a_place_that_cannot_be_served_is_refused_at_start(place: str) -> None:
    with pytest.raises(ConfigError, match="cannot serve at"):
        await Bus("s", {"": "memory://"}, plugins=[Probes(place)]).start()


async def test_what_is_no_request_gets_no_answer_and_harms_nothing() -> None:
    probes = Probes("127.0.0.1:0")
    async with Bus("s", {"": "memory://"}, plugins=[probes]):
        reader, writer = await asyncio.open_connection("127.0.0.1", probes.port)
        writer.write(b"x" * 20_000)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert (await ask(probes.port, "/health/live"))[0] == 200
