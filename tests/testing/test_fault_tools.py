"""Faults of process, disk and clock: each happens, is seen by what it is done to, and ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from arc_bus import Bus, Notice, NoticeKind, Retry, StartAt
from arc_bus.errors import TransportError, Unsupported
from arc_bus.servers import nats_server
from arc_bus.testing import SmallDisk
from arc_bus.testing.faults import down, freeze, frozen, jumped, thaw

Until = Callable[..., Awaitable[None]]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_stands_still_until_it_is_thawed() -> None:
    script = "while True: print(1, flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            freeze(process.pid)
            assert state(process.pid) == "T"
            thaw(process.pid)
            assert state(process.pid) != "T"
        finally:
            process.kill()


async def test_a_server_is_frozen_then_killed_and_comes_back_with_its_data(until: Until) -> None:
    with nats_server() as server:
        async with frozen(server):
            assert state(server.pid) == "T"
        first = server.pid
        async with down(server):
            assert not server.alive
        assert server.pid != first
        assert server.monitor("/varz")["jetstream"]["config"]


@pytest.fixture
def disk() -> SmallDisk:
    small = SmallDisk(24)
    try:
        small.__enter__()
    except Unsupported as error:
        pytest.skip(str(error))
    small.__exit__()
    return SmallDisk(24)


def test_a_full_disk_refuses_to_be_written_to_and_can_be_emptied(disk: SmallDisk) -> None:
    with disk:
        disk.fill(leave=100_000)
        assert 0 < disk.free <= 100_000
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(bytes(100_000))
        disk.empty()
        (disk.folder / "more").write_bytes(bytes(100_000))
        folder = disk.folder
    assert not folder.exists()


async def test_hazard_22_a_full_disk_is_an_error_and_costs_nothing_confirmed(
    disk: SmallDisk, until: Until
) -> None:
    confirmed: list[int] = []
    seen: set[object] = set()
    with disk, nats_server(folder=disk.folder / "data") as server:
        url = server.url.replace("nats://", "nats+jetstream://")
        bus = Bus("full", routes={"full.": f"{url}/FULL?confirm_timeout=2&publish_tries=1"})

        async def handle(order: dict[str, object]) -> None:
            seen.add(order["number"])

        async def publish(number: int) -> None:
            await bus.publish("full.orders", {"number": number, "text": "x" * 50_000})
            confirmed.append(number)

        async def fill_up() -> None:
            for number in range(1, 100):
                await publish(number)

        async with bus:
            await publish(0)
            disk.fill(leave=1_000_000)
            with pytest.raises(TransportError):
                await fill_up()
            disk.empty()
            await asyncio.to_thread(server.restart)
            await publish(1000)
            bus.subscribe(
                "full.orders", handle, group="late", start=StartAt.EARLIEST, dead_letter=None
            )
            await until(lambda: set(confirmed) <= seen, 30.0)
    assert len(confirmed) > 2


def test_a_jump_moves_the_wall_clock_and_no_other() -> None:
    true, steady = time.time(), time.monotonic()
    with jumped(3600):
        assert time.time() - true > 3599
        assert time.time_ns() - true * 1e9 > 3599e9
        with jumped(-7200):
            assert time.time() - true < -3500
        assert time.monotonic() - steady < 60
    assert abs(time.time() - true) < 60


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_jump_of_an_hour_loses_delays_and_doubles_nothing(
    arc_memory: str, until: Until, seconds: float
) -> None:
    """Retries, leases, deduplication and time-outs go by a clock that does not jump."""
    attempts: list[int] = []
    bus = Bus("clock", routes={"": arc_memory})
    notices: list[Notice] = []
    bus.observe(notices.append)

    @bus.subscribe("clock.orders", group="g", retry=Retry(attempts=3, first=0.05), timeout=5.0)
    async def handle(order: dict[str, int]) -> None:
        attempts.append(order["number"])
        if attempts.count(order["number"]) == 1:
            raise ValueError("once")

    @bus.subscribe("clock.question")
    async def answer(order: dict[str, int]) -> dict[str, int]:
        return order

    async with bus:
        await bus.publish("clock.orders", {"number": 1}, message_id="one")
        await until(lambda: 1 in attempts)
        with jumped(seconds):
            await until(lambda: attempts.count(1) == 2)
            await bus.publish("clock.orders", {"number": 1}, message_id="one")
            await bus.publish("clock.orders", {"number": 2})
            await until(lambda: attempts.count(2) == 2)
            reply = await bus.request("clock.question", {"number": 3}, dict[str, int])
        await bus.publish("clock.orders", {"number": 4})
        await until(lambda: attempts.count(4) == 2)
        await asyncio.sleep(0)
    assert reply == {"number": 3}
    assert attempts.count(1) == 2, "the id was published twice within the window"
    assert [n for n in notices if n.kind in (NoticeKind.DROPPED, NoticeKind.DEAD_LETTERED)] == []
