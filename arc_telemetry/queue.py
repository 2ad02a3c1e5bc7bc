"""ExportQueue: what waits for the collector, bounded in memory and in time.

The SDK's batch processor writes a log record for every item it drops, ignores the time limits of
`force_flush` and `shutdown` (they took 21 s with a dead collector), and counts losses only in an
experimental metric. This one never blocks the thread that puts something in, counts what it loses
and why, and stops when it was told to.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from opentelemetry.context import attach, detach, set_value

from arc_bus.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

Lost: TypeAlias = Callable[[int, str], None]
"""Told how many items were lost, and why, from any thread."""

SUPPRESS = "suppress_instrumentation"
"""The context key by which instrumentations know that a call is telemetry's own."""

JUST_NOW = 5.0
"""Seconds after a failed export in which closing does not try again."""

CLOSING = 0.5
"""Seconds of a shutdown that are kept for closing the exporter, which ends a hanging call."""


class Limits:
    """How many items may wait (`queue`), go in one request (`batch`), and how long (`delay`, s)."""

    def __init__(self, queue: int = 2048, batch: int = 512, delay: float = 5.0) -> None:
        """Raises ConfigError unless 0 < batch <= queue and delay > 0."""
        if not 0 < batch <= queue or delay <= 0:
            raise ConfigError(f"telemetry queue: {batch=} must be in 1..{queue=}, {delay=} above 0")
        self.queue = queue
        self.batch = batch
        self.delay = delay

    @classmethod
    def from_environment(cls, prefix: str, delay: int) -> Limits:
        """Read `<prefix>_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE` and `_SCHEDULE_DELAY` (ms).

        The prefix is `OTEL_BSP` for spans and `OTEL_BLRP` for logs, `delay` its default in ms.
        """
        queue = _whole(f"{prefix}_MAX_QUEUE_SIZE", 2048)
        batch = _whole(f"{prefix}_MAX_EXPORT_BATCH_SIZE", min(512, queue))
        return cls(queue, batch, _whole(f"{prefix}_SCHEDULE_DELAY", delay) / 1000)


def _whole(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "").strip()
    try:
        return int(text) if text else otherwise
    except ValueError:
        raise ConfigError(f"{name}={text!r} is not a whole number") from None


class ExportQueue(Generic[T]):
    """Exports what is put in from one daemon thread; see the module.

    `export` takes a batch and says whether it arrived; it may block and may raise. `close_exporter`
    ends a call of it that hangs.
    """

    def __init__(
        self,
        export: Callable[[list[T]], bool],
        close_exporter: Callable[[], object],
        limits: Limits,
        lost: Lost,
    ) -> None:
        """Start the thread."""
        self._export = export
        self._close_exporter = close_exporter
        self._limits = limits
        self._lost = lost
        self._waiting: deque[T] = deque()
        self._awake = threading.Event()
        self._flushes: list[threading.Event] = []
        self._lock = threading.Lock()
        self._overflowed = self._told = 0
        self._closing = False
        self._abandoning = False
        self._failed_at: float | None = None
        self._thread = self._start()
        after_fork = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    def put(self, item: T) -> None:
        """Queue `item`; when the queue is full or closed it is lost, and counted. Never blocks."""
        if self._closing:
            self._lost(1, "shutdown")
        elif len(self._waiting) >= self._limits.queue:
            self._overflowed += 1  # told by the thread: telling costs more than a span
        else:
            self._waiting.append(item)
            if len(self._waiting) >= self._limits.batch and not self._awake.is_set():
                self._awake.set()

    def flush(self, timeout: float) -> bool:
        """Export all that waits; True if all of it arrived within `timeout` seconds.

        Ends at the first batch that does not arrive: what waits behind it is tried again later.
        """
        if self._closing:
            return not self._waiting
        done = threading.Event()
        with self._lock:
            self._flushes.append(done)
        self._awake.set()
        return done.wait(timeout) and self._failed_at is None

    def close(self, timeout: float) -> bool:
        """Export what waits and stop, within `timeout` seconds; what is left then is counted lost.

        True if nothing was left. Idempotent. What is left goes unsent at once if the collector was
        not there a moment ago, so that a service does not wait for it twice.
        """
        if self._closing:
            return True
        now = time.monotonic()
        deadline = now + timeout
        self._abandoning = self._failed_at is not None and now - self._failed_at < JUST_NOW
        self._closing = True
        self._awake.set()
        self._thread.join(max(0.0, timeout - min(CLOSING, timeout / 2)))
        self._abandoning = True
        self._close_exporter()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._tell()
        left = len(self._take(self._limits.queue))
        if left:
            self._lost(left, "shutdown")
        return not left and not self._thread.is_alive()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="arc-telemetry", daemon=True)
        thread.start()
        return thread

    def _after_fork(self) -> None:
        if self._closing:
            return
        self._waiting.clear()  # the parent sends these
        self._awake = threading.Event()
        self._lock = threading.Lock()
        self._flushes = []
        self._thread = self._start()

    def _run(self) -> None:
        while not self._closing:
            self._awake.wait(self._limits.delay)
            self._awake.clear()
            with self._lock:
                flushes, self._flushes = self._flushes, []
            self._drain()
            self._tell()
            for done in flushes:
                done.set()
        self._drain()

    def _drain(self) -> None:
        """Export batch after batch, as many as wait now, or until one does not arrive."""
        due = len(self._waiting)
        while due > 0 and not self._abandoning:
            batch = self._take(self._limits.batch)
            if not batch:
                return
            due -= len(batch)
            if not self._arrives(batch):
                self._failed_at = time.monotonic()
                self._lost(len(batch), "export")
                return
            self._failed_at = None

    def _tell(self) -> None:
        """Report what did not fit since the last time."""
        with self._lock:
            new = self._overflowed - self._told
            self._told += new
        if new:
            self._lost(new, "queue_full")

    def _take(self, most: int) -> list[T]:
        """Take up to `most` waiting items; `close` may take some at the same moment."""
        taken: list[T] = []
        while len(taken) < most:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                break
        return taken

    def _arrives(self, batch: list[T]) -> bool:
        token = attach(set_value(SUPPRESS, True))
        try:
            return self._export(batch)
        except Exception:
            log.exception("exporting %d items failed", len(batch))
            return False
        finally:
            detach(token)
