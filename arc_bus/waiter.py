"""Futures that resume the task behind them at once, not in the next turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class Waiter(asyncio.Future[T]):
    """A future for one task to wait for, completed by what the loop itself calls.

    asyncio resumes a task in the turn after the one that completed its future. A turn asks the
    system for news of all sockets, so what came over one would be taken up twice as late as need
    be. `finish` runs the task's next step within its own call instead; everything else that can be
    done to a future is done as to any other.
    """

    _resume: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Call `fn` when it is done; a task that waits gives its context, and nobody else does."""
        if context is not None:
            self._resume = (fn, context)
        super().add_done_callback(fn, context=context)

    def finish(self, result: T) -> bool:
        """Complete it; True if the waiting task has made its next step before this returns.

        It has not where there is none yet, or where a task calls this: then it follows in the next
        turn. What a step raises stays in its task.
        """
        resume = self._resume
        if resume is not None and asyncio.current_task(self.get_loop()) is None:
            fn, context = resume
            if self.remove_done_callback(fn):
                self.set_result(result)
                context.run(fn, self)
                return True
        self.set_result(result)
        return False


def finisher(loop: asyncio.AbstractEventLoop) -> Callable[[asyncio.Future[T], T], None]:
    """Return what completes plain futures within this call, at once unless a task is running."""
    return _resume if asyncio.current_task(loop) is None else _complete


def _complete(future: asyncio.Future[T], result: T) -> None:
    future.set_result(result)


def _resume(future: asyncio.Future[T], result: T) -> None:
    """Do what `Waiter.finish` does, to a plain future, for which a task waits at half the price.

    asyncio shows who waits under a name that it may change: where there is none, or not exactly
    one, who waits goes on in the next turn.
    """
    waiting = getattr(future, "_callbacks", None)
    if waiting is None or len(waiting) != 1:
        future.set_result(result)
        return
    fn, context = waiting[0]
    future.remove_done_callback(fn)
    future.set_result(result)
    context.run(fn, future)
