"""Broker: destinations, the queues behind them, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from weakref import WeakValueDictionary

import msgspec

from arc_bus.errors import ConfigError, PublishRejected
from arc_bus.policy import Subscription
from arc_bus.routing import has_wildcard, matches
from arc_bus.transport import Deliver, Delivery, Outgoing, StartAt
from arc_inmemory.dedup import Dedup
from arc_inmemory.feed import MemoryFeed
from arc_inmemory.inbox import Inbox
from arc_inmemory.log import Log
from arc_inmemory.options import MemoryOptions
from arc_inmemory.queue import Queue
from arc_inmemory.stored import Shelf, Stored

_ROUTES = 65_536
"""Destinations whose queues are remembered; beyond it all are looked up anew, once each."""


class _Route(msgspec.Struct, frozen=True, gc=False):
    queues: tuple[Queue, ...]
    retained: bool


class Broker:
    """What a server would be. Groups, and what waits for them, live as long as it does.

    It belongs to the event loop of the first transport that starts on it.
    """

    def __init__(self, options: MemoryOptions) -> None:
        self.options = options
        self._limit = options.group_bytes
        self._shelf = Shelf()
        self._groups: dict[tuple[str, str], Queue] = {}
        self._plain: dict[str, list[Queue]] = {}
        self._wild: list[Queue] = []
        self._routes: dict[str, _Route] = {}
        self._log = Log(options.keep_bytes)
        self._dedup = Dedup(options.dedup_window, options.dedup_ids)
        self._kept_patterns: set[str] = set()
        self._kept: dict[int, Stored] = {}
        self._kept_bytes = 0
        self._inboxes: dict[str, Inbox] = {}
        self._inboxes_opened = 0

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to: the running one, from the first look on."""
        return asyncio.get_running_loop()

    def publish(self, outgoing: Outgoing) -> None:
        """Put a message into every matching queue, or into none if its id was seen already.

        Raises PublishRejected, and puts it nowhere, when a queue is full.
        """
        destination, id, limit = outgoing.destination, outgoing.id, self._limit
        route = self._routes.get(destination) or self._find(destination)
        for queue in route.queues:
            if queue.held > limit:
                raise self._full(f"group {queue.group!r} of {queue.pattern!r}", queue.held)
        if route.retained and self._kept_bytes > limit:
            raise self._full(f"what is retained on {destination!r}", self._kept_bytes)
        if id and not self._dedup.first(destination, id, self.loop.time()):
            return
        message = self._shelf.store(outgoing)
        self._log.append(message)
        if route.retained:
            self._kept[message.number] = message
            self._kept_bytes += message.size
        for queue in route.queues:
            queue.push(message)

    def ask(self, outgoing: Outgoing, reply_to: str) -> bool:
        """Put a request where somebody reads now; return whether anybody does. It is not kept."""
        route = self._routes.get(outgoing.destination) or self._find(outgoing.destination)
        served = [queue for queue in route.queues if queue.readers]
        for queue in served:
            if queue.held > self._limit:
                raise self._full(f"group {queue.group!r} of {queue.pattern!r}", queue.held)
        message = self._shelf.store(outgoing, reply_to)
        for queue in served:
            queue.push(message)
        return bool(served)

    def open_inbox(self, inbox: Inbox) -> str:
        """Return the address at which `inbox` now gets replies."""
        self._inboxes_opened += 1
        address = f"_INBOX.memory.{self._inboxes_opened}"
        self._inboxes[address] = inbox
        return address

    def close_inbox(self, address: str) -> None:
        """Drop what comes to `address` from now on."""
        self._inboxes.pop(address, None)

    def answer(self, address: str, outgoing: Outgoing) -> None:
        """Hand a reply to the inbox at `address`; it is dropped if the requester waits no more."""
        inbox = self._inboxes.get(address)
        if inbox is not None:
            reply = self._shelf.store(outgoing)
            inbox.put(Delivery(address, reply.body, reply.headers, reply.id or None, reply.key))

    def subscribe(
        self, subscription: Subscription, deliver: Deliver, forget: Callable[[MemoryFeed], None]
    ) -> MemoryFeed:
        """Return a new reader of the subscription's queue, which is made if it is new.

        A queue is its pattern and its group: one group on two patterns has two queues.
        """
        pattern, group = subscription.pattern, subscription.group
        queue = self._groups.get((pattern, group)) if group is not None else None
        if queue is None:
            queue = self._make(pattern, group, subscription.start)

        def leave() -> None:
            if group is None:
                self._remove(queue)
            forget(feed)

        feed = MemoryFeed(queue, deliver, self.options.ack_deadline, leave)
        return feed

    def retain(self, pattern: str) -> None:
        """Keep what is published to `pattern` from now on, until it is discarded."""
        self._kept_patterns.add(pattern)
        self._routes.clear()

    def kept(self, pattern: str) -> list[Stored]:
        """Return what is kept on `pattern`, oldest first."""
        return [message for message in self._kept.values() if matches(pattern, message.subject)]

    def discard(self, number: int) -> None:
        """Keep this message no longer."""
        message = self._kept.pop(number, None)
        if message is not None:
            self._kept_bytes -= message.size

    def _full(self, what: str, held: int) -> PublishRejected:
        return PublishRejected(
            f"{what} holds {held} bytes, the limit is group_bytes={self._limit};"
            " settle or discard messages, or raise the limit"
        )

    def _find(self, destination: str) -> _Route:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        wild = (queue for queue in self._wild if matches(queue.pattern, destination))
        route = self._routes[destination] = _Route(
            (*self._plain.get(destination, ()), *wild),
            any(matches(pattern, destination) for pattern in self._kept_patterns),
        )
        return route

    def _make(self, pattern: str, group: str | None, start: StartAt) -> Queue:
        queue = Queue(pattern, group, self.loop)
        if group is not None:
            self._groups[(pattern, group)] = queue
        self._siblings(pattern).append(queue)
        if start is StartAt.EARLIEST:
            for message in self._log.matching(pattern):
                queue.push(message)
        return queue

    def _remove(self, queue: Queue) -> None:
        self._siblings(queue.pattern).remove(queue)
        if not self._plain.get(queue.pattern, True):
            del self._plain[queue.pattern]

    def _siblings(self, pattern: str) -> list[Queue]:
        """Return the list to change, and forget the routes that this change makes wrong."""
        if has_wildcard(pattern):
            self._routes.clear()
            return self._wild
        self._routes.pop(pattern, None)
        return self._plain.setdefault(pattern, [])


_named: WeakValueDictionary[str, Broker] = WeakValueDictionary()
# The one piece of state of this module: without it two buses of a process could not meet.


def named(name: str, options: MemoryOptions) -> Broker:
    """Return the broker of that name in this process, made if it is new.

    It ends, with all it holds, when nothing refers to it any more: keep the result, or a
    transport, over a restart of the only service that uses it. Raises ConfigError if it exists
    with other options.
    """
    broker = _named.get(name)
    if broker is None:
        broker = _named[name] = Broker(options)
    elif broker.options != options:
        raise ConfigError(
            f"memory://{name} exists with {broker.options!r} and cannot have {options!r};"
            " give the same options, or another name"
        )
    return broker
