"""Workers that are kept up, and started anew when a file changes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Running, Shell  # noqa: TID251 - types only

SERVICE = """
from arc_bus import Bus

bus = Bus("served", {"": "memory://"})
"""

FAILING = """
import asyncio
import logging
from collections.abc import AsyncIterator
from arc_bus import Bus, Retry

bus = Bus("served", {"": "memory://"})
begun = asyncio.Event()

async def handler(payload: dict[str, str]) -> None:
    begun.set()
    raise ValueError(payload["words"])

@bus.lifespan
async def speak(bus: Bus) -> AsyncIterator[None]:
    await bus.subscribe("a.b", handler, retry=Retry(attempts=1))
    await bus.publish("a.b", {"words": "a secret"})
    await begun.wait()
    yield
"""


def process_of(line: str) -> int:
    found = re.search(r"process (\d+)", line)
    assert found is not None, line
    return int(found[1])


async def gone(process: int) -> None:
    """Return when there is no such process; it is not our child, so nobody tells us."""
    async with asyncio.timeout(60):
        with suppress(ProcessLookupError):
            while True:
                os.kill(process, 0)
                await asyncio.sleep(0.01)


async def up(run: Running, workers: int = 1) -> list[int]:
    return [process_of(await run.until("is up")) for _ in range(workers)]


async def test_a_crashed_worker_is_replaced_and_all_end_with_the_command(bare_shell: Shell) -> None:
    (bare_shell.folder / "service.py").write_text(SERVICE)
    async with bare_shell.running("run", "service:bus", "--workers", "2") as run:
        first, second = await up(run, 2)

        os.kill(first, signal.SIGKILL)
        told = await run.until("was ended by SIGKILL")
        (third,) = await up(run)

        assert "another in 0.5 s" in told
        assert await run.stop(signal.SIGTERM) == 0
        for process in (second, third):
            await gone(process)


async def test_a_worker_that_never_came_up_ends_the_command_with_its_exit_code(
    bare_shell: Shell,
) -> None:
    (bare_shell.folder / "service.py").write_text("raise SystemExit(7)")

    said = bare_shell("run", "service:bus", "--workers", "2", code=7)

    assert "ended with exit code 7 before it was up" in said


async def test_a_changed_file_starts_it_anew_and_a_broken_one_waits_for_the_next(
    bare_shell: Shell,
) -> None:
    service = bare_shell.folder / "service.py"
    service.write_text(SERVICE)
    async with bare_shell.running("run", "service:bus", "--reload") as run:
        (first,) = await up(run)

        service.write_text(SERVICE + "this is no Python\n")
        assert "service.py" in await run.until("changed: starting anew")
        await run.until("waiting for a change")
        await gone(first)

        service.write_text(SERVICE)
        (second,) = await up(run)
        assert await run.stop(signal.SIGINT) == 0
        await gone(second)


async def test_workers_end_when_the_command_is_killed(bare_shell: Shell) -> None:
    (bare_shell.folder / "service.py").write_text(SERVICE)
    async with bare_shell.running("run", "service:bus", "--workers", "2") as run:
        workers = await up(run, 2)

        run.process.kill()

        for process in workers:
            await gone(process)


def test_fewer_workers_than_one_are_refused(bare_shell: Shell) -> None:
    assert "--workers 0: at least 1" in bare_shell("run", "a:b", "--workers", "0", code=2)


async def test_alone_it_says_when_it_is_up_and_logs_what_fails(bare_shell: Shell) -> None:
    (bare_shell.folder / "service.py").write_text(FAILING)
    async with bare_shell.running("run", "service:bus") as run:
        await run.until("is up")
        assert await run.stop(signal.SIGTERM) == 0
        assert run.process.stdout is not None
        said = [*run.said, *(await run.process.stdout.read()).decode().splitlines()]
    assert f"service:bus (process {run.process.pid}) is up" in said
    assert any("WARNING arc_bus: served: dead_lettered on 'a.b'" in line for line in said)
    assert "ValueError" in said
    assert "secret" not in "".join(said)


async def test_the_modules_own_logging_is_left_as_it_is(bare_shell: Shell) -> None:
    own = "logging.basicConfig(level=logging.WARNING, format='OURS %(message)s')\n"
    (bare_shell.folder / "service.py").write_text(FAILING + own)
    async with bare_shell.running("run", "service:bus") as run:
        assert (await run.until("dead_lettered")).startswith("OURS served: dead_lettered")
        assert await run.stop(signal.SIGTERM) == 0
