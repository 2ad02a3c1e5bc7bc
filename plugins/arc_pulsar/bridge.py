"""Bridge: from the client library's C++ threads to the event loop, in batches.

The library calls back on threads of its own, which must take the interpreter's lock for it: the
fewer crossings, the faster. And an exception that leaves such a callback ends the process
("terminate called ..."), so nothing here lets one out, not even when the loop is closed already.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

_Call = tuple[Callable[..., None], tuple[object, ...]]

_AT_ONCE: Final = 2000
"""Calls run in one turn of the loop before others have theirs."""


class Bridge:
    """Runs on the loop what other threads hand over, in their order, many in one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve `loop`."""
        self.loop = loop
        self.unanswered = 0  # subscriptions that the library may never answer
        self._calls: deque[_Call] = deque()
        self._woken = False
        self._post = self.post  # one object for all, see `held`

    def callback(self, function: Callable[..., None], *args: object) -> Callable[..., None]:
        """Return what the library may call, on any thread, to have `function` called on the loop.

        `function` gets `args` and then the arguments of the library.
        """
        return partial(self._post, function, *args)

    @property
    def held(self) -> int:
        """How many callbacks the library has not let go of yet, counted by their references.

        While there is one, a thread of the library may want the interpreter, if only to forget it:
        an interpreter that ends meanwhile takes the process with it.
        """
        return sys.getrefcount(self._post) - 2

    async def released(self, deadline: float) -> bool:
        """Return whether the library holds no callback any more, within `deadline` seconds.

        Of the `unanswered` ones it lets go when it answers them or, closed before, never.
        """
        end = self.loop.time() + deadline
        while self.held > self.unanswered and self.loop.time() < end:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
        return self.held <= self.unanswered

    def post(self, function: Callable[..., None], *args: object) -> None:
        """Have the loop call `function(*args)` soon. From any thread; raises nothing, ever.

        Once the loop is closed it is a no-op: there is nobody left to tell.
        """
        self._calls.append((function, args))
        # Set before the wake-up and cleared before the work (in `_run`): a call appended in between
        # is either seen by the run under way or wakes another. Appends are atomic.
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed
                self._calls.clear()

    def _run(self) -> None:
        self._woken = False
        calls = self._calls
        for _ in range(min(len(calls), _AT_ONCE)):
            function, args = calls.popleft()
            function(*args)
        if calls and not self._woken:
            self._woken = True
            self.loop.call_soon(self._run)

    async def ask(
        self,
        start: Callable[[Callable[..., None]], None],
        unwanted: Callable[[tuple[object, ...]], None] | None = None,
    ) -> tuple[object, ...]:
        """Return the arguments that the library calls back with, after `start(callback)`.

        Cancelling the wait leaves the operation running: what comes of it then goes to `unwanted`,
        on the loop, which closes it.
        """
        future: asyncio.Future[tuple[object, ...]] = self.loop.create_future()

        def finish(*result: object) -> None:
            if not future.done():
                future.set_result(result)
            elif unwanted is not None:
                unwanted(result)

        start(self.callback(finish))
        return await future
