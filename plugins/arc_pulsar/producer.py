"""TopicProducer: publishes to one topic, in order, bounded, each publish confirmed by the broker.

Messages go in batches of ours (`batch`): as long as few of them are unanswered, at the end of each
turn of the event loop, else when an answer comes, the batch is full or `batching_delay` has passed.
A lone message thus waits for nobody, and the busier the topic, the larger its batches.

What a publish waits for is the receipt of its own batch, which holds messages of one key. With
`Confirm.GROUP` one answer, to the last message, is for all that were handed over together: sends
to a topic without partitions complete in order, and a time-out fails all that is pending. What it
does not show is one batch among them that the broker refuses for its checksum; over TLS the
connection's own integrity check comes before that. It saves answers where a topic has many keys.
On a partitioned topic the library makes the batches, as only it knows what goes where, and every
message is asked for, with GROUP the last of each key.

A message that the library would refuse is refused here first: our bounds lie within its own, and
sizes are checked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from arc_bus import errors
from arc_bus.errors import ArcBusError
from arc_bus.transport import Outgoing
from arc_pulsar import failure, vendor
from arc_pulsar.batch import MOST, MOST_BYTES, Entry, Group, anywhere, by_key, seal
from arc_pulsar.client import PulsarClient
from arc_pulsar.options import Confirm
from arc_pulsar.producing import message_of, producer_settings

Prepare: TypeAlias = Callable[[str], Awaitable[None]]
"""Makes a topic ready for its first message."""

AT_ONCE: Final = 4
"""Answers that are waited for before messages wait for company: enough to keep a broker busy."""

# The library's producer has ended for good after these; the next publish opens another.
_ENDED: Final = frozenset(
    {"AlreadyClosed", "NotConnected", "ProducerFenced", "ProducerNotInitialized"}
)


class TopicProducer:
    """The one producer of a topic in this transport; opened by the first publish.

    A publish beyond `max_pending` waits its turn, at most `send_timeout`; the order of calls is
    the order of sending, also over waits. Its producer name is the broker's choice, so that
    replicas and fast restarts never collide.
    """

    def __init__(self, client: PulsarClient, topic: str, prepare: Prepare | None = None) -> None:
        """Publish to `topic`.

        `prepare` is awaited before the topic is first published to; such a topic's messages are
        kept to be settled one by one, so each is stored as an entry of its own, without batches.
        """
        self.topic = topic
        self._prepare = prepare
        self._client = client
        self._callback = client.bridge.callback
        self._options = client.options
        self._batching = prepare is None and client.options.batching
        self._loop = asyncio.get_running_loop()
        self._grouped = client.options.confirm is Confirm.GROUP
        self._settings: vendor.Settings | None = None  # where the batches are ours
        self._producer: vendor.Producer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing = False
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._turn_ends = False
        self._unanswered: set[Group] = set()
        self._idle: asyncio.Event = asyncio.Event()
        self._pending = 0
        self._bytes = 0

    @property
    def pending(self) -> int:
        """Messages handed to the library and not answered yet."""
        return self._pending

    @property
    def connected(self) -> bool | None:
        """Whether the broker holds this producer now; None before it was opened."""
        return self._producer.is_connected() if self._producer is not None else None

    def submit(self, outgoing: Outgoing, size: int) -> asyncio.Future[None]:
        """Send, or queue, one message of `size` bytes; return the future of its confirmation.

        Cancelling the future takes a queued message back, and no longer waits for a sent one.
        """
        if self._closing:
            raise errors.BusStopped(f"publishing to {self.topic!r}: the transport is stopping")
        loop = self._loop
        future: asyncio.Future[None] = loop.create_future()
        deadline = loop.time() + self._options.send_timeout
        entry = Entry(message_of(outgoing), outgoing.key or None, size, future, deadline)
        self._waiting.append(entry)
        self._waiting_bytes += size
        if self._expiry is None:
            self._expiry = loop.call_at(deadline, self._expire)
        if not self._turn_ends:
            self._plan()
        return future

    def _room(self, size: int) -> bool:
        options = self._options
        if self._pending == 0:
            return True
        return self._pending < options.max_pending and (
            self._bytes + size <= options.max_pending_bytes
        )

    def _plan(self) -> None:
        """Have what waits sent: at the end of this turn of the loop, or when there is company."""
        if self._producer is None:
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
        elif self._room(self._waiting[0].size):
            full = len(self._waiting) >= MOST or self._waiting_bytes >= MOST_BYTES
            if full or len(self._unanswered) < AT_ONCE or self._settings is None:
                if self._turn is not None:
                    self._turn.cancel()
                self._turn_ends = True
                self._turn = self._loop.call_soon(self._end_turn)
            elif self._turn is None:
                self._turn = self._loop.call_later(self._options.batching_delay, self._end_turn)

    def _end_turn(self) -> None:
        """Send one batch; the next one in another turn, so that the loop is never held up."""
        self._turn, self._turn_ends = None, False
        producer = self._producer
        if producer is not None:
            batch = self._take()
            if batch:
                self._send(producer, batch)
        if self._waiting:
            self._plan()

    def _take(self) -> list[Entry]:
        """Return the next batch, in order: what waits, has room, and fits into one."""
        waiting, options = self._waiting, self._options
        most = min(MOST, options.max_pending - self._pending)
        spare = options.max_pending_bytes - self._bytes
        batch: list[Entry] = []
        size = 0
        while waiting and len(batch) < most:
            entry = waiting[0]
            total = size + entry.size
            if batch and total > MOST_BYTES:
                break
            if (batch or self._pending) and total > spare:
                break
            waiting.popleft()
            self._waiting_bytes -= entry.size
            if not entry.future.done():  # else cancelled meanwhile
                batch.append(entry)
                size = total
        self._pending += len(batch)
        self._bytes += size
        return batch

    def _unqueue(self) -> Entry:
        entry = self._waiting.popleft()
        self._waiting_bytes -= entry.size
        return entry

    def _send(self, producer: vendor.Producer, batch: list[Entry]) -> None:
        """Give a batch to the library, with a callback for the last message of each group."""
        if self._settings is not None:
            seal(self._settings, len(batch))
        groups = self._groups(batch)
        self._unanswered.update(groups)
        last = {group.entries[-1]: group for group in groups}
        send, callback, answered = producer.send_async, self._callback, self._answered
        for entry in batch:
            group = last.get(entry)
            send(entry.message, None if group is None else callback(answered, group))

    def _groups(self, batch: list[Entry]) -> list[Group]:
        if self._settings is None:
            return anywhere(batch) if self._grouped else [Group([entry]) for entry in batch]
        groups = by_key(batch, whole=True)
        return [Group(batch)] if self._grouped and len(groups) > 1 else groups

    def _answered(self, group: Group, result: vendor.Result, last: vendor.MessageId) -> None:
        entries = group.entries
        self._unanswered.discard(group)
        self._pending -= len(entries)
        self._bytes -= sum(entry.size for entry in entries)
        if result.value == 0:
            stored = group.proved_by(last)
            for entry in stored:
                if not entry.future.done():
                    entry.future.set_result(None)
            if stored is not entries:
                torn = f"publishing to {self.topic!r}: no receipt of its batch came"
                self._fail(entries[:-1], partial(errors.PublishUnconfirmed, torn))
        else:
            self._refused(result.name)
            error = partial(failure.sending, result.name, self.topic)
            self._fail(entries[-1:], error)
            self._fail(entries[:-1], partial(error, sure=False))
        if self._waiting and not self._turn_ends:
            self._plan()
        self._look_idle()

    def _refused(self, code: str) -> None:
        """Open another producer, now or for the next publish, if this one has ended for good."""
        if code in _ENDED and not self._closing:
            self._producer = None

    def _fail(self, entries: Sequence[Entry], error: Callable[[], ArcBusError]) -> None:
        for entry in entries:
            if not entry.future.done():
                entry.future.set_exception(error())

    def _look_idle(self) -> None:
        if not self._pending and not self._waiting:
            self._idle.set()

    def _expire(self) -> None:
        """Fail what has waited its time: it never reached the library, so it is not stored."""
        self._expiry = None
        now, waiting = self._loop.time(), self._waiting
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= now):
            self._give_up(f"not sent within {self._options.send_timeout} s")
        if waiting:
            self._expiry = self._loop.call_at(waiting[0].deadline, self._expire)
        self._look_idle()

    def _give_up(self, why: str) -> None:
        text = f"publishing to {self.topic!r}: {why}; the message is not stored"
        self._fail([self._unqueue()], partial(errors.ConnectionLost, text))

    async def _open(self) -> None:
        try:
            if self._prepare is not None:
                await self._prepare(self.topic)
            partitioned = len(await self._client.partitions(self.topic)) > 1
            ours = self._batching and not partitioned
            settings = producer_settings(self._options, batching=self._batching, ours=ours)
            self._producer = await self._client.open_producer(self.topic, settings)
            self._settings = settings if ours else None
        except ArcBusError as error:
            while self._waiting:
                self._fail([self._unqueue()], partial(_same, error))
        finally:
            self._opening = None
        if self._waiting:
            self._plan()
        self._look_idle()

    async def flush(self) -> None:
        """Return when every publish begun before has ended, well or not."""
        sent = [entry.future for group in self._unanswered for entry in group.entries]
        futures = [*sent, *(entry.future for entry in self._waiting)]
        if futures:
            await asyncio.wait(futures)

    async def close(self, deadline: float) -> None:
        """Take no more; wait at most `deadline` seconds for what is pending; close the producer."""
        self._closing = True
        try:
            async with asyncio.timeout(deadline):
                if self._opening is not None:
                    await asyncio.wait({self._opening})
                while self._pending or self._waiting:
                    self._idle.clear()
                    await self._idle.wait()
                if self._producer is not None:
                    await self._client.end(self._producer)
        except TimeoutError:
            self._abandon()
        finally:
            self._producer = None
            for timer in (self._expiry, self._turn):
                if timer is not None:
                    timer.cancel()

    def _abandon(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        while self._waiting:
            self._give_up("the transport stopped")
        for group in self._unanswered:
            self._fail(group.entries, partial(failure.sending, "Interrupted", self.topic))
        self._unanswered.clear()


def _same(error: ArcBusError) -> ArcBusError:
    return error
