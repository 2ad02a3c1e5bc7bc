"""Waiter: its task goes on within `finish` where the loop calls it, else in the next turn."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from arc_bus.waiter import Waiter, finisher

seen: ContextVar[str] = ContextVar("seen", default="nothing")


async def from_the_loop(waiter: Waiter[str], heard: list[str], text: str = "a word") -> bool:
    """Finish from a callback of the loop; return whether the waiting task had gone on by then."""
    told: list[bool] = []

    def call() -> None:
        told.append(waiter.finish(text) and heard[-1:] == [text])

    asyncio.get_running_loop().call_soon(call)
    while not told:  # noqa: ASYNC110 - the turns of the loop are what is tested
        await asyncio.sleep(0)
    return told[0]


async def listen(waiter: Waiter[str], heard: list[str]) -> None:
    try:
        heard.append(await waiter)
    except BaseException as error:
        heard.append(type(error).__name__)
        raise


async def listening() -> tuple[Waiter[str], list[str], asyncio.Task[None]]:
    waiter: Waiter[str] = Waiter()
    heard: list[str] = []
    task = asyncio.create_task(listen(waiter, heard))
    await asyncio.sleep(0)
    return waiter, heard, task


async def test_a_task_goes_on_within_the_call_of_a_callback() -> None:
    waiter, heard, task = await listening()
    assert await from_the_loop(waiter, heard)
    assert heard == ["a word"]
    await task


async def test_a_task_goes_on_in_the_next_turn_where_another_task_finishes() -> None:
    waiter, heard, task = await listening()
    assert not waiter.finish("a word")
    assert heard == []
    await task
    assert heard == ["a word"]


async def test_what_nobody_waits_for_yet_is_there_when_somebody_does() -> None:
    waiter: Waiter[str] = Waiter()
    assert not await from_the_loop(waiter, [])
    assert await waiter == "a word"


async def test_a_step_runs_in_its_own_context_and_as_its_own_task() -> None:
    found: list[object] = []

    async def look(waiter: Waiter[str]) -> None:
        seen.set("the task's")
        await waiter
        found.extend((seen.get(), asyncio.current_task()))
        seen.set("later")
        async with asyncio.timeout(1):
            await asyncio.sleep(0)

    waiter: Waiter[str] = Waiter()
    task = asyncio.create_task(look(waiter))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waiter.finish, "a word")
    await task
    assert found == ["the task's", task]
    assert seen.get() == "nothing"


async def test_what_a_step_raises_stays_in_its_task() -> None:
    async def fail(waiter: Waiter[str]) -> None:
        raise ValueError(await waiter)

    waiter: Waiter[str] = Waiter()
    task = asyncio.create_task(fail(waiter))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waiter.finish, "a word")
    with pytest.raises(ValueError, match="a word"):
        await task


async def test_a_cancelled_task_and_an_exception_are_as_with_any_future() -> None:
    waiter, heard, task = await listening()
    task.cancel()
    await asyncio.wait({task})
    assert waiter.cancelled()
    assert heard == ["CancelledError"]
    other, heard, task = await listening()
    other.set_exception(KeyError("a word"))
    await asyncio.wait({task})
    assert isinstance(task.exception(), KeyError)


async def test_others_hear_of_it_beside_the_task_that_waits() -> None:
    waiter, heard, task = await listening()
    watching = asyncio.create_task(asyncio.wait({waiter}))
    shielded = asyncio.ensure_future(asyncio.shield(waiter))
    await asyncio.sleep(0)
    assert await from_the_loop(waiter, heard)
    done, _ = await watching
    assert done == {waiter}
    assert await shielded == "a word"
    await task


async def test_two_tasks_that_wait_for_one_both_go_on() -> None:
    waiter, heard, task = await listening()
    second = asyncio.create_task(listen(waiter, heard))
    await asyncio.sleep(0)
    assert await from_the_loop(waiter, heard)
    await asyncio.gather(task, second)
    assert heard == ["a word", "a word"]


async def test_a_plain_future_is_finished_at_once_from_the_loop_and_later_from_a_task() -> None:
    loop = asyncio.get_running_loop()
    heard: list[object] = []

    async def look(future: asyncio.Future[str]) -> None:
        heard.append(await future)
        heard.append(asyncio.current_task())

    def finish(future: asyncio.Future[str]) -> None:
        finisher(loop)(future, "a word")
        heard.append("returned")

    futures = [loop.create_future() for _ in range(3)]
    first, second, both = [asyncio.create_task(look(future)) for future in futures]
    await asyncio.sleep(0)
    loop.call_soon(finish, futures[0])
    await asyncio.wait({first})
    assert heard == ["a word", first, "returned"]
    heard.clear()
    finish(futures[1])
    await second
    assert heard == ["returned", "a word", second]
    heard.clear()
    futures[2].add_done_callback(lambda future: heard.append(future.result()))
    loop.call_soon(finish, futures[2])
    await both
    assert heard == ["returned", "a word", both, "a word"]
