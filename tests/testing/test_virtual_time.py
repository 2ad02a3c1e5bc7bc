"""VirtualTimeLoop: time costs nothing, order is kept, and what is real is waited for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine
from typing import TypeVar

from arc_bus.testing.virtual_time import VirtualTimeLoop

Result = TypeVar("Result")


def run(main: Coroutine[object, object, Result]) -> Result:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def test_a_day_of_sleep_passes_without_waiting_for_it() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(86_400)
        return loop.time() - before

    began = time.monotonic()
    assert run(main()) == 86_400
    # Not a measurement: a loop that waited would be a day late.
    assert time.monotonic() - began < 60


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[tuple[float, int]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, int]] = []

        async def after(seconds: float, name: int) -> None:
            await asyncio.sleep(seconds)
            fired.append((loop.time(), name))

        await asyncio.gather(after(30, 1), after(0.2, 2), after(600, 3), after(0.2, 4))
        return fired

    assert run(main()) == [(0.2, 2), (0.2, 4), (30, 1), (600, 3)]


def test_a_timeout_ends_a_wait_that_would_never_end() -> None:
    async def main() -> bool:
        try:
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        except TimeoutError:
            return True
        return False

    assert run(main())


def test_the_clock_does_not_jump_while_a_thread_is_at_work() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        may_end = threading.Event()
        timer = loop.call_later(3600, may_end.set)
        before = loop.time()
        work = asyncio.create_task(asyncio.to_thread(may_end.wait, 0.05))
        await work
        timer.cancel()
        return loop.time() - before

    # With a jump, the hour would have passed and set the event before the thread gave up.
    assert 0.04 <= run(main()) < 60


def test_the_clock_jumps_again_once_the_thread_has_returned() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: 5) == 5
        await asyncio.sleep(3600)
        return loop.time()

    assert run(main()) >= 3600


def test_a_cancelled_thread_call_still_holds_the_clock_until_it_returns() -> None:
    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        may_end, ended = threading.Event(), asyncio.Event()

        def work() -> None:
            may_end.wait()
            loop.call_soon_threadsafe(ended.set)

        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0.01)
        during = loop.may_jump()
        may_end.set()
        await ended.wait()
        while not loop.may_jump():  # noqa: ASYNC110 - the loop's own state has no event
            await asyncio.sleep(0)
        return during, loop.may_jump()

    assert run(main()) == (False, True)


def test_a_watched_socket_is_waited_for_in_real_time() -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            sender = threading.Timer(0.05, theirs.sendall, (b"late",))
            sender.start()
            async with asyncio.timeout(30):
                return await loop.sock_recv(ours, 4)

    assert run(main()) == b"late"


def test_a_set_default_executor_is_used() -> None:
    from concurrent.futures import ThreadPoolExecutor

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="mine"))
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert run(main()).startswith("mine")
