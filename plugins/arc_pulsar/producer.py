"""TopicProducer: publishes to one topic, in order, bounded, each publish confirmed by the broker.

`Confirm.EACH` asks the library for an answer to every message. Each answer takes the interpreter's
lock on a thread of the library, which is most of what a publish costs. `Confirm.GROUP` asks once
for all messages of one key that were published in one turn of the event loop: sends to one
partition complete in order, a key stays in its partition, and a time-out fails all that is
pending, so the answer to the last one holds for those before it. Messages without a key are one
group on a topic without partitions; on a partitioned topic, where they go anywhere, each is asked
for. (`flush_async` is not used: on a partitioned topic it reports only the partition that finished
last.) What GROUP does not see is one batch, not the group's last, that the broker refuses for its
checksum: over TLS the connection's own integrity check comes before that. A message the library
would refuse is refused here first: our bounds lie within its own, and sizes are checked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from arc_bus.errors import ArcBusError, BusStopped, ConnectionLost, PublishRejected
from arc_bus.transport import Outgoing
from arc_pulsar import failure, vendor
from arc_pulsar.client import PulsarClient
from arc_pulsar.options import Confirm
from arc_pulsar.producing import producer_settings

Prepare: TypeAlias = Callable[[str], Awaitable[None]]
"""Makes a topic ready for its first message."""

# The library's producer has ended for good after these; the next publish opens another.
_ENDED: Final = frozenset(
    {"AlreadyClosed", "NotConnected", "ProducerFenced", "ProducerNotInitialized"}
)


class _Entry:
    """One publish: the library's message, its future, and how many bytes it holds."""

    __slots__ = ("deadline", "future", "key", "message", "size")

    def __init__(
        self, message: vendor.Message, key: str | None, size: int, future: asyncio.Future[None]
    ) -> None:
        self.message = message
        self.key = key
        self.size = size
        self.future = future
        self.deadline = 0.0


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
        self._builder = vendor.load().MessageBuilder
        self._grouped = client.options.confirm is Confirm.GROUP
        self._partitioned = False
        self._producer: vendor.Producer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing = False
        self._waiting: deque[_Entry] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._turn_due = False
        self._outstanding: set[asyncio.Future[None]] = set()
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
            raise BusStopped(f"publishing to {self.topic!r}: the transport is stopping")
        future: asyncio.Future[None] = self._loop.create_future()
        message = self._build(outgoing)
        self._outstanding.add(future)
        if self._producer is None or self._grouped or self._waiting or not self._room(size):
            self._queue(_Entry(message, outgoing.key, size, future))
        else:
            self._send(self._producer, message, size, future)
        return future

    def _build(self, outgoing: Outgoing) -> vendor.Message:
        builder = self._builder()
        try:
            builder.content(outgoing.body)
            builder.properties({**outgoing.headers, "message_id": outgoing.id})
            if outgoing.key:
                builder.partition_key(outgoing.key)
        except (TypeError, UnicodeError):  # its text would show the headers' values
            raise PublishRejected(
                f"publishing to {self.topic!r}: the message {outgoing.id!r} has a body that is not"
                " bytes, or a header or key that is not Unicode text"
            ) from None
        return builder.build()

    def _room(self, size: int) -> bool:
        options = self._options
        if self._pending == 0:
            return True
        return self._pending < options.max_pending and (
            self._bytes + size <= options.max_pending_bytes
        )

    def _queue(self, entry: _Entry) -> None:
        entry.deadline = self._loop.time() + self._options.send_timeout
        self._waiting.append(entry)
        if self._producer is None:
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
        elif self._grouped and not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._end_turn)
        if self._expiry is None:
            self._expiry = self._loop.call_at(entry.deadline, self._expire)

    def _end_turn(self) -> None:
        self._turn_due = False
        self._advance()

    def _advance(self) -> None:
        """Send what waits and has room, in order."""
        producer, waiting = self._producer, self._waiting
        if producer is None:
            return
        turn: list[_Entry] = []
        while waiting and self._room(waiting[0].size):
            entry = waiting.popleft()
            if entry.future.done():  # cancelled meanwhile
                self._outstanding.discard(entry.future)
                continue
            if self._grouped:
                self._pending += 1
                self._bytes += entry.size
                turn.append(entry)
            else:
                self._send(producer, entry.message, entry.size, entry.future)
        if turn:
            self._send_turn(producer, turn)

    def _send(
        self,
        producer: vendor.Producer,
        message: vendor.Message,
        size: int,
        future: asyncio.Future[None],
    ) -> None:
        self._pending += 1
        self._bytes += size
        producer.send_async(message, self._callback(self._sent, future, size))

    def _send_turn(self, producer: vendor.Producer, turn: list[_Entry]) -> None:
        """Send the messages of one turn of the loop; ask for an answer only to each key's last."""
        groups: dict[object, list[_Entry]] = {}
        for entry in turn:
            anywhere = self._partitioned and not entry.key
            groups.setdefault(entry if anywhere else entry.key, []).append(entry)
        callback = self._callback
        last = {group[-1]: group for group in groups.values()}
        for entry in turn:
            group = last.get(entry)
            producer.send_async(
                entry.message,
                None if group is None else callback(self._group_sent, group),
            )

    def _sent(
        self, future: asyncio.Future[None], size: int, result: vendor.Result, _id: vendor.MessageId
    ) -> None:
        self._pending -= 1
        self._bytes -= size
        if result.value == 0:
            self._outstanding.discard(future)
            if not future.done():
                future.set_result(None)
        else:
            self._refused(result.name)
            self._fail(future, failure.sending(result.name, self.topic))
        if self._waiting:
            self._advance()
        if not self._pending:
            self._look_idle()

    def _group_sent(
        self, group: list[_Entry], result: vendor.Result, last: vendor.MessageId
    ) -> None:
        for entry in group:
            self._sent(entry.future, entry.size, result, last)

    def _refused(self, code: str) -> None:
        """Open another producer, now or for the next publish, if this one has ended for good."""
        if code in _ENDED and not self._closing:
            self._producer = None
            if self._waiting and self._opening is None:
                self._opening = self._loop.create_task(self._open())

    def _fail(self, future: asyncio.Future[None], error: ArcBusError) -> None:
        self._outstanding.discard(future)
        if not future.done():
            future.set_exception(error)

    def _look_idle(self) -> None:
        if not self._pending and not self._waiting:
            self._idle.set()

    def _expire(self) -> None:
        """Fail what has waited its time: it never reached the library, so it is not stored."""
        self._expiry = None
        now, waiting = self._loop.time(), self._waiting
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= now):
            self._give_up(waiting.popleft(), f"not sent within {self._options.send_timeout} s")
        if waiting:
            self._expiry = self._loop.call_at(waiting[0].deadline, self._expire)
        self._look_idle()

    def _give_up(self, entry: _Entry, why: str) -> None:
        text = f"publishing to {self.topic!r}: {why}; the message is not stored"
        self._fail(entry.future, ConnectionLost(text))

    async def _open(self) -> None:
        try:
            if self._prepare is not None:
                await self._prepare(self.topic)
            if self._grouped:
                self._partitioned = len(await self._client.partitions(self.topic)) > 1
            self._producer = await self._client.open_producer(
                self.topic, producer_settings(self._options, batching=self._batching)
            )
        except ArcBusError as error:
            while self._waiting:
                self._fail(self._waiting.popleft().future, error)
        finally:
            self._opening = None
        self._advance()
        self._look_idle()

    async def flush(self) -> None:
        """Return when every publish begun before has ended, well or not."""
        if self._outstanding:
            await asyncio.wait(tuple(self._outstanding))

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
            if self._expiry is not None:
                self._expiry.cancel()

    def _abandon(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        while self._waiting:
            self._give_up(self._waiting.popleft(), "the transport stopped")
        for future in self._outstanding:
            if not future.done():
                future.set_exception(failure.sending("Interrupted", self.topic))
        self._outstanding.clear()
