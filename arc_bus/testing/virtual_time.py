"""VirtualTimeLoop: an event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs what asyncio runs, with `time()` starting at 0 and costing nothing.

    When no callback is ready the clock is set to the next timer, so `asyncio.sleep(30)`, a retry's
    back-off or an ack deadline takes microseconds, in the same order as in real time. As long as
    something outside may still wake the loop, a call in an executor or a socket that is watched,
    time passes as the wall clock does. Threads that were not started by `run_in_executor` are not
    known here, and a task that spins on `sleep(0)` stops the clock. Nothing that reads
    `time.monotonic()` itself is virtual.
    """

    # Parts of the base class that its type stubs leave out.
    _default_executor: ThreadPoolExecutor | None
    _selector: selectors.BaseSelector

    def __init__(self) -> None:
        self._now = 0.0
        self._outstanding = 0
        super().__init__(_JumpingSelector(self))
        # The loop watches one descriptor for itself, by which threads and signals wake it.
        self._own_watched = self._watched()

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Set the clock forward; the loop itself calls it, a test rarely has to."""
        self._now += seconds

    def may_jump(self) -> bool:
        """Return whether nothing outside the loop can wake it."""
        return self._outstanding == 0 and self._watched() == self._own_watched

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Result],
        *args: *Arguments,
    ) -> asyncio.Future[Result]:
        """Run `func` in a thread; until it has returned, time passes as the wall clock does."""
        call = (executor or self._default_pool()).submit(func, *args)
        waiter = asyncio.wrap_future(call, loop=self)
        self._outstanding += 1
        # Added after wrap_future's own callback: the result is in the loop before this is counted.
        call.add_done_callback(lambda _: self._report_returned())
        return waiter

    def _default_pool(self) -> Executor:
        if self._default_executor is None:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="virtual-time"))
        assert self._default_executor is not None
        return self._default_executor

    def _report_returned(self) -> None:
        if not self.is_closed():
            self.call_soon_threadsafe(self._returned)

    def _returned(self) -> None:
        self._outstanding -= 1

    def _watched(self) -> int:
        return len(self._selector.get_map())


class _JumpingSelector(selectors.BaseSelector):
    """The system's selector, except that a wait for nothing but time is skipped."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Poll; if nothing is ready, let `timeout` seconds of the loop's time pass."""
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is not None and self._loop.may_jump():
            self._loop.advance(timeout)
            return ready
        began = time.monotonic()
        ready = self._real.select(timeout)
        passed = time.monotonic() - began
        self._loop.advance(passed if timeout is None else min(passed, timeout))
        return ready

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()
