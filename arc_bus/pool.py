"""Pool: the growing pool of workers that runs one subscription's messages, in lanes where asked.

A worker is an ordinary task that takes message after message, so that a handler which never
suspends costs no task switch. While messages wait, one more worker is woken or started each loop
turn, up to `concurrency`; handlers that suspend therefore run in parallel. Measured against a task
for each message: ten times as fast. With lanes, messages of equal key run strictly one after
another, retries included; a lane is a deque of its own that disappears when empty.
"""

# Over 300 lines: lanes, slots and pauses are one state machine; apart, none could be read alone.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from typing import Any

from arc_bus.message import Message, current_message
from arc_bus.middleware import Handler
from arc_bus.waiter import Waiter

LAST_WORDS = 5.0
"""Seconds that a cancelled handler may take to end before it is left behind."""

_ROUNDING = 1e-9
"""What a token may lack after a wait that was computed to complete it."""

ENDINGS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What no handler fails with: the event loop, or all of the process, is to end."""

FAIR_SHARE = 64
"""Messages that a worker runs before it lets the loop turn, so that a backlog never starves I/O."""


class Pool:
    """Runs `run(message)` for every message added, at most `concurrency` at a time.

    `run`, set before the first message comes, settles its message; `failed` is awaited with what it
    raises all the same, `left` called with each message that has left the pool, `resumed` at the
    end of each pause. Belongs to the event loop it was made in.
    """

    def __init__(
        self,
        left: Callable[[Message], None],
        concurrency: int,
        *,
        lanes: bool = False,
        rate: float | None = None,
        resumed: Callable[[], None] = lambda: None,
        failed: Callable[[Message, BaseException], Awaitable[None]],
    ) -> None:
        self.held = 0
        self.parked = 0  # of those held, how many wait behind another of their lane
        self.run: Handler = _nothing_to_run
        self._left = left
        self._concurrency = concurrency
        self._rate = rate
        self._resumed = resumed
        self._failed = failed
        self._tokens = 1.0
        self._refilled = 0.0
        self._lanes: dict[object, deque[Message]] | None = {} if lanes else None
        self._ready: deque[Message] = deque()
        self._running: set[Message] = set()
        self._busy = 0
        self._idle: list[Waiter[None]] = []
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._sleeping: set[asyncio.Future[bool]] = set()
        self._overdue: list[asyncio.Future[bool]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[Any]] = set()
        self._pauses: dict[str, asyncio.TimerHandle | None] = {}
        self._growing = False
        self._hurried = False
        self._cancelled = False
        self._cut_off: list[Message] = []
        self._empty: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._base: Context = copy_context()
        self._base.run(current_message.set, None)

    def add(self, messages: Iterable[Message], count: int) -> None:
        """Queue `count` messages; those of a lane in progress wait behind it."""
        self.held += count
        lanes = self._lanes
        if lanes is None:
            self._ready.extend(messages)
        else:
            for message in messages:
                if message.lane is None:
                    self._ready.append(message)
                elif (lane := lanes.get(message.lane)) is not None:
                    lane.append(message)
                    self.parked += 1
                else:
                    lanes[message.lane] = deque()
                    self._ready.append(message)
        self._stir()

    def messages(self) -> list[Message]:
        """Return all that is in the pool now, running first."""
        waiting = [m for lane in (self._lanes or {}).values() for m in lane]
        return [*self._running, *self._ready, *waiting]

    @property
    def running(self) -> int:
        """How many messages a handler has begun on."""
        return len(self._running)

    @property
    def runs_here(self) -> bool:
        """Whether the task that asks is one of the workers."""
        return asyncio.current_task() in self._tasks

    @property
    def lanes(self) -> int:
        """How many lanes exist now."""
        return len(self._lanes or ())

    @property
    def paused(self) -> bool:
        """Whether nothing is started at present."""
        return bool(self._pauses)

    def drop(self, *, newest: bool) -> Message | None:
        """Take out the message that waited longest, or shortest; None if none waits.

        A lane keeps at most its first message in the common queue, so lanes are looked at too.
        """
        lanes = self._lanes or {}
        if not self._ready:
            lane = next((lane for lane in lanes.values() if lane), None)
            if lane is None:
                return None
            self.held -= 1
            self.parked -= 1
            return lane.pop() if newest else lane.popleft()
        message = self._ready.pop() if newest else self._ready.popleft()
        self.held -= 1
        if message.lane is not None:
            lane = lanes[message.lane]
            if not lane:
                del lanes[message.lane]
            elif newest:
                self.parked -= 1
                self._ready.append(message)
                return lane.pop()
            else:
                self.parked -= 1
                self._ready.append(lane.popleft())
        return message

    def take_waiting(self) -> list[Message]:
        """Take out all that no handler has begun on, in order."""
        lanes = self._lanes or {}
        waiting = list(self._ready)
        self._ready.clear()
        for lane in lanes.values():
            waiting.extend(lane)
            lane.clear()
        in_progress = {message.lane for message in self._running}
        for message in waiting:
            if message.lane not in in_progress:
                lanes.pop(message.lane, None)
        self.held -= len(waiting)
        self.parked = 0
        self._note_empty()
        return waiting

    def pause(self, seconds: float | None = None, why: str = "asked") -> None:
        """Start nothing more until `resume()`, or for `seconds`; each `why` has a pause of its own.

        A pause takes the place of an earlier one of its `why`, and never ends another's.
        """
        self._end_pause(why)
        end = None if seconds is None else self._loop.call_later(seconds, self._pause_over, why)
        self._pauses[why] = end

    def resume(self) -> None:
        """Go on after every `pause()`."""
        for why in tuple(self._pauses):
            self._end_pause(why)
        self._resumed()
        overdue, self._overdue = self._overdue, []
        for waiter in overdue:
            self._due(waiter)
        self._stir()

    def _pause_over(self, why: str) -> None:
        self._end_pause(why)
        if not self._pauses:
            self.resume()

    def _end_pause(self, why: str) -> None:
        timer = self._pauses.pop(why, None)
        if timer is not None:
            timer.cancel()

    def _due(self, waiter: asyncio.Future[bool]) -> None:
        """Let a sleeper try again, unless it is to wait like all others who would start."""
        if self._pauses or (self._rate and not waiter.done() and not self._token()):
            self._overdue.append(waiter)
        else:
            _finish(waiter, True)

    async def sleep(self, seconds: float, *, starts: bool = True) -> bool:
        """Wait inside a run without holding a slot; False if `wake_sleepers` cut it short.

        Where a handler `starts` then, it does so within the rate and in no pause.
        """
        waiter: asyncio.Future[bool] = self._loop.create_future()
        if starts:
            timer = self._loop.call_later(seconds, self._due, waiter)
        else:
            timer = self._loop.call_later(seconds, _finish, waiter, True)
        self._sleeping.add(waiter)
        if not self._give_slot():
            self._busy -= 1
            self._stir()
        try:
            whole = await waiter
        except asyncio.CancelledError:
            self._busy += 1  # its worker ends now, and gives a slot back as every worker does
            raise
        finally:
            timer.cancel()
            self._sleeping.discard(waiter)
        await self._take_slot()
        return whole

    def wake_sleepers(self) -> None:
        """End every `sleep` at once."""
        for waiter in self._sleeping:
            _finish(waiter, False)

    def uncancel(self) -> None:
        """Take a cancellation of the calling worker back until its message is dealt with.

        A handler may have cancelled its own task; or the loop is ending all of them.
        """
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
            self._retiring.add(task)

    async def join(self, seconds: float) -> bool:
        """Wait until the pool is empty; False if it is not after `seconds`."""
        if not self.held:
            return True
        if self._hurried:
            return False
        self._empty = self._loop.create_future()
        await asyncio.wait({self._empty}, timeout=seconds)
        return not self.held

    def give_up(self) -> None:
        """End a `join` under way, or one yet to come, as if its time were over."""
        self._hurried = True
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def cancel(self) -> list[Message]:
        """Cancel what runs, start nothing more, and return the messages that were not finished.

        Handlers that resist get `LAST_WORDS` seconds; one that ends well in them has finished.
        """
        self._cancelled = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)
        for why in tuple(self._pauses):
            self._end_pause(why)
        return [*self._cut_off, *self.messages()]

    async def _take_slot(self) -> None:
        if self._busy < self._concurrency:
            self._busy += 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._resuming.append(waiter)
        try:
            await waiter  # whoever gives its slot leaves `_busy` as it is
        except asyncio.CancelledError:
            self._busy += waiter.cancelled()  # as in `sleep`, unless it was given one
            raise

    def _stir(self) -> None:
        """Wake or start one worker if there is work for it, and come again while there is more."""
        if not self._ready or self._pauses or self._busy >= self._concurrency or self._cancelled:
            return
        self._busy += 1
        begun = False
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                begun = waiter.finish(None)
                break
        else:
            self._start()
        # One that has not begun yet has still to take its first.
        if len(self._ready) > (not begun) and not self._growing:
            self._growing = True
            self._loop.call_soon(self._grow)

    def _grow(self) -> None:
        self._growing = False
        self._stir()

    def _start(self) -> None:
        task = self._loop.create_task(self._work(), context=self._base.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        """Take messages until the context is no longer clean; rest when there are none."""
        base, ready, running, run = self._base, self._ready, self._running, self.run
        left, retiring, bind = self._left, self._retiring, current_message.set
        task = asyncio.current_task()
        assert task is not None
        served = 0
        while True:
            if self._resuming and self._give_slot():
                await self._rest()
            elif not ready or self._pauses or (self._rate and not self._token()):
                self._busy -= 1
                await self._rest()
            else:
                message = ready.popleft()
                running.add(message)
                bind(message)
                try:
                    await run(message)
                except asyncio.CancelledError as error:
                    if self._cancelled:
                        self._cut_off.append(message)
                        raise
                    self.uncancel()
                    await self._failed(message, error)
                except ENDINGS as ending:
                    self._cut_off.append(message)
                    if not isinstance(ending, GeneratorExit):  # after that nothing can be started
                        self._leave()
                    raise
                except BaseException as error:
                    await self._failed(message, error)
                finally:
                    bind(None)
                    running.discard(message)
                    self.held -= 1
                    if message.lane is not None:
                        self._next_in(message.lane)
                    left(message)
                    if self._empty is not None:
                        self._note_empty()
                # Equal contexts share their tree, so the comparison stops at once (0.1 µs). A task
                # that was cancelled serves no further message, whoever cancelled it.
                if copy_context() != base or task.cancelling() or task in retiring:
                    retiring.discard(task)
                    self._leave()
                    return
                served += 1
                if served >= FAIR_SHARE:
                    served = 0
                    try:
                        await asyncio.sleep(0)
                    except asyncio.CancelledError:
                        self._leave()
                        raise

    async def _rest(self) -> None:
        waiter: Waiter[None] = Waiter(loop=self._loop)
        self._idle.append(waiter)
        try:
            await waiter  # whoever wakes it has counted it as busy
        except asyncio.CancelledError:  # by a handler of before, which kept its task
            if not waiter.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Give up a worker's slot for good."""
        if not self._give_slot():
            self._busy -= 1
            self._stir()

    def _give_slot(self) -> bool:
        while self._resuming:
            waiter = self._resuming.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False

    def _next_in(self, lane: object) -> None:
        """Let the lane's next message run; a lane without one disappears."""
        lanes = self._lanes
        assert lanes is not None, "only with lanes does a message get one"
        waiting = lanes[lane]
        if waiting:
            self.parked -= 1
            self._ready.append(waiting.popleft())
            self._stir()
        else:
            del lanes[lane]

    def _note_empty(self) -> None:
        if not self.held and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _token(self) -> bool:
        """Take one start from the rate's bucket, or pause until there is one."""
        assert self._rate is not None
        now = self._loop.time()
        burst = max(1.0, self._rate / 10)
        self._tokens = min(burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens >= 1.0 - _ROUNDING:
            self._tokens -= 1.0
            return True
        self.pause((1.0 - self._tokens) / self._rate, "rate")
        return False


async def _nothing_to_run(message: Message) -> object:
    raise AssertionError(f"{message!r} came before the pool was told what to run")


def _finish(waiter: asyncio.Future[bool], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)
