"""Jumps of the wall clock, as an administrator or a time server makes them."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def jumped(seconds: float) -> Generator[None]:
    """Let `time.time()` and `time.time_ns()` of this process run `seconds` ahead (or behind).

    The monotonic clock and the event loop's go on as they did: that is what a jump is. Code that
    has imported the functions by name (`from time import time`), C extensions and other processes
    see the true time. May be nested, and used in the middle of a run.
    """
    now, now_ns = time.time, time.time_ns
    ahead = round(seconds * 1_000_000_000)

    def then() -> float:
        return now() + seconds

    def then_ns() -> int:
        return now_ns() + ahead

    with mock.patch.object(time, "time", then), mock.patch.object(time, "time_ns", then_ns):
        yield
