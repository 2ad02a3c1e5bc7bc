"""Relay: takes messages out of the outbox and gives them to the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

import msgspec

from arc_bus.errors import (
    BusStopped,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    InvalidName,
    PayloadError,
    PublishRejected,
    PublishUnconfirmed,
    text_of,
)
from arc_bus.notice import Notice, NoticeKind
from arc_bus.policy import Retry
from arc_bus.transport import Outgoing
from arc_store.errors import StoreClosed
from arc_store.repositories import Claim, Queue, Queued

_FIRST_REST, _LONGEST_REST = 0.05, 5.0
_LONGEST_PAUSE = 30.0
_AWAY = (BusStopped, ConnectFailed, ConnectionLost)
_UNANSWERED = (TimeoutError, PublishUnconfirmed)
_HOPELESS = (PayloadError, PublishRejected, InvalidName, ConfigError)


class RelayPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a relay works; durations in seconds.

    `batch` messages are taken at a time, `timeout` is given to each publish. A message that
    fails waits as `retry` says and is dead after its attempts; while the broker is away, or
    answers nobody, nothing counts as an attempt. `poll` is how often the outbox is looked at
    without being woken.
    """

    batch: int = 200
    timeout: float = 5.0
    poll: float = 1.0
    retry: Retry = Retry(attempts=10, first=0.5, max=60.0)


class _Rest(msgspec.Struct, frozen=True, kw_only=True):
    """Until when a destination is left alone, because its broker is away."""

    until: float
    pause: float


_Failure: TypeAlias = tuple[Queued, Exception]


class Relay:
    """Sends what is in the outbox, in the order of each key, until it is stopped.

    Messages of one key go one after another, the others at the same time. Sending again after a
    crash keeps the message's id and headers, so that readers and brokers see the duplicate.
    """

    def __init__(
        self,
        queue: Queue,
        forward: Callable[[Outgoing], Awaitable[None]],
        policy: RelayPolicy,
        report: Callable[[Notice], None],
    ) -> None:
        """Take from `queue`, publish by `forward`; `report` what died, and failures to go on."""
        self._queue = queue
        self._forward = forward
        self._policy = policy
        self._report = report
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._resting: dict[str, _Rest] = {}

    def wake(self) -> None:
        """Look at the outbox now."""
        self._wake.set()

    def try_again(self) -> None:
        """Look at the outbox now, and at every destination in it: a broker is there again."""
        self._resting.clear()
        self._wake.set()

    async def run(self) -> None:
        """Relay until `stop`, or until the store is closed.

        Whatever else fails is reported and tried again, for nobody else sends these messages: after
        `poll` seconds, then after twice that, and so on up to 30 s.
        """
        pause = 0.0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                settled = await self.relay_once()
            except StoreClosed:
                return
            except Exception as error:
                pause = min(pause * 2 or self._policy.poll, _LONGEST_PAUSE)
                self._report_pause(error, pause)
                await _set_within(self._stopping, pause)
                continue
            pause = 0.0
            if not settled:
                await self._sleep()

    def _report_pause(self, error: Exception, pause: float) -> None:
        detail = f"the outbox is not relayed; tried again in {pause:g} s"
        self._report(Notice(kind=NoticeKind.ERROR, detail=detail, error=error))

    async def stop(self) -> None:
        """Take nothing more; what is being sent is finished."""
        self._stopping.set()
        self._wake.set()

    async def _sleep(self) -> None:
        """Wait to be woken, for the next poll, or for the first destination that has rested."""
        now = time.monotonic()
        rests = [rest.until - now for rest in self._resting.values() if rest.until > now]
        await _set_within(self._wake, min([self._policy.poll, *rests]))

    async def relay_once(self) -> int:
        """Send one batch; return how many messages were sent, delayed or buried."""
        now = time.monotonic()
        resting = [where for where, rest in self._resting.items() if rest.until > now]
        async with self._queue.claim(self._policy.batch, resting) as claim:
            lanes = _lanes(claim.messages)
            outcomes = await asyncio.gather(*(self._send_lane(lane) for lane in lanes))
            sent = [number for numbers, _ in outcomes for number in numbers]
            await claim.sent(sent)
            failures = [failure for _, failure in outcomes if failure is not None]
            answered = {
                lane[0].outgoing.destination
                for lane, (numbers, _) in zip(lanes, outcomes, strict=True)
                if numbers
            }
            counted = await self._settle_failures(claim, failures, answered)
        return len(sent) + counted

    async def _settle_failures(
        self, claim: Claim, failures: Sequence[_Failure], answered: set[str]
    ) -> int:
        """Count attempts, but let the destinations rest that are away; return how many counted.

        No answer is the message's own failure where the same destination `answered` others.
        """
        counted = 0
        for destination in answered:
            self._resting.pop(destination, None)
        for queued, error in failures:
            destination = queued.outgoing.destination
            unanswered = isinstance(error, _UNANSWERED) and destination not in answered
            if unanswered or isinstance(error, _AWAY):
                self._rest(destination)
            else:
                await self._settle_failure(claim, queued, error)
                counted += 1
        return counted

    async def _send_lane(self, lane: Sequence[Queued]) -> tuple[list[int], _Failure | None]:
        """Send until one fails; return the numbers sent, and what failed with its error."""
        sent: list[int] = []
        for queued in lane:
            try:
                async with asyncio.timeout(self._policy.timeout):
                    await self._forward(queued.outgoing)
            except Exception as error:
                return sent, (queued, error)
            sent.append(queued.number)
        return sent, None

    def _rest(self, destination: str) -> None:
        """Leave a destination alone for a while, each time for longer; others go on."""
        now = time.monotonic()
        known = self._resting.get(destination)
        if known is not None and known.until > now:
            return  # another lane has found the same
        pause = min(known.pause * 2, _LONGEST_REST) if known else _FIRST_REST
        self._resting[destination] = _Rest(until=now + pause, pause=pause)

    async def _settle_failure(self, claim: Claim, queued: Queued, error: Exception) -> None:
        retry = self._policy.retry
        attempt = queued.attempts + 1
        said = _storable(f"{type(error).__name__}: {text_of(error)}")
        if attempt < retry.attempts and not isinstance(error, _HOPELESS):
            await claim.failed(queued.number, said, timedelta(seconds=retry.delay(attempt)))
            return
        await claim.bury(queued.number, said)
        detail = f"outbox message {queued.outgoing.id} to {queued.outgoing.destination}: {said}"
        self._report(Notice(kind=NoticeKind.DEAD_LETTERED, count=1, detail=detail, error=error))


def _lanes(messages: Sequence[Queued]) -> list[list[Queued]]:
    """Return the messages of each key together, in order; one without a key is alone."""
    lanes: dict[object, list[Queued]] = {}
    for queued in messages:
        outgoing = queued.outgoing
        key = queued.number if outgoing.key is None else (outgoing.destination, outgoing.key)
        lanes.setdefault(key, []).append(queued)
    return list(lanes.values())


def _storable(said: str) -> str:
    """Return an error's text as a database can keep it."""
    return said.replace("\x00", "")[:1000].encode(errors="backslashreplace").decode()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set, or after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
