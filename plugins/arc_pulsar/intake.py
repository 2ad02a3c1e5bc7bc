"""Intake: brings what a consumer received to the loop, in batches, when it is asked to.

While little arrives, one asynchronous receive waits inside the library: no thread, no polling, and
the message is on the loop at once. When messages follow each other closely, a thread fetches them
by `batch_receive`, which takes the interpreter's lock once a batch instead of once a message.
Neither is ever cancelled (the library would hand the next message to nobody): what arrives after
`stop()` stays unacknowledged and returns to the broker when the consumer is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeAlias

from arc_pulsar import vendor
from arc_pulsar.bridge import Bridge

CLOSELY: Final = 0.005
"""Seconds between two messages, or less, after which a thread begins to fetch."""

BATCH_WAIT_MS: Final = 2
"""How long the library waits to fill a batch; an empty one ends the thread's work."""

Arrived: TypeAlias = Callable[[list[vendor.Message]], None]
"""Takes messages on the loop, at least one."""


class Intake:
    """Receives from one consumer: each `want()` brings one batch, one message at least."""

    def __init__(
        self,
        consumer: vendor.Consumer,
        bridge: Bridge,
        threads: Executor,
        arrived: Arrived,
    ) -> None:
        """Call `arrived` on the loop with what comes."""
        self._consumer: vendor.Consumer | None = consumer
        self._bridge = bridge
        self._threads = threads
        self._arrived = arrived
        self._wanted = False
        self._stopped = False
        self._fetching = False
        self._fetched = asyncio.Event()
        self._closely = False
        self._last = float("-inf")

    def want(self) -> None:
        """Ask for more, unless that was done and is not answered yet."""
        if self._wanted or self._stopped or self._consumer is None:
            return
        self._wanted = True
        if self._closely:
            self._fetching = True
            self._threads.submit(self._fetch, self._consumer)
        else:
            self._consumer.receive_async(self._bridge.callback(self._one))

    def stop(self) -> None:
        """Bring nothing more."""
        self._stopped = True

    async def finish(self) -> None:
        """Return when no thread waits in the consumer: its end might leave it waiting there."""
        while self._fetching:
            self._fetched.clear()
            await self._fetched.wait()

    def release(self) -> None:
        """Let go of the consumer.

        A receive that is pending holds this intake; were that to hold the consumer, which holds the
        receive, neither would ever be freed (a multi-topic consumer keeps it over an unsubscribe).
        """
        self._consumer = None

    def _fetch(self, consumer: vendor.Consumer) -> None:
        """Receive one batch; on a thread, which leaves all else to the loop's.

        Two threads that both run Python would wait for each other's lock at every turn.
        """
        try:
            messages = consumer.batch_receive()
        except Exception:  # it has ended: `_many` then asks once more, and is told so
            messages = []
        self._bridge.post(self._many, messages)

    def _many(self, messages: list[vendor.Message]) -> None:
        self._wanted = self._fetching = False
        self._fetched.set()
        self._closely = bool(messages)
        if self._stopped:
            return
        if messages:
            self._arrived(messages)
        else:
            self.want()

    def _one(self, result: vendor.Result, message: vendor.Message) -> None:
        self._wanted = False
        if result.value != 0:  # only when the consumer was closed
            self._stopped = True
        if self._stopped:
            return
        now = self._bridge.loop.time()
        self._closely = now - self._last <= CLOSELY
        self._last = now
        self._arrived([message])
