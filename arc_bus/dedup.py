"""The dedup layer: a message id that this subscription has handled is skipped, and acked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from arc_bus.message import Message
from arc_bus.middleware import Handler
from arc_bus.policy import Subscription


class _Memory:
    """The `DedupStore` of one subscription in one process, at most `size` ids."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._until: OrderedDict[str, float] = OrderedDict()
        self._now = asyncio.get_running_loop().time

    async def handled(self, subscription: str, id: str) -> bool:
        until = self._until
        while until and next(iter(until.values())) < self._now():
            until.popitem(last=False)
        return id in until

    async def remember(self, subscription: str, id: str, window: float) -> None:
        self._until[id] = self._now() + window
        if len(self._until) > self._size:
            self._until.popitem(last=False)


def deduplicated(handler: Handler, subscription: Subscription) -> Handler:
    """Skip ids whose handler has returned; an id counts as done after success, never before."""
    dedup = subscription.dedup
    if dedup is None:
        return handler
    store = dedup.store or _Memory(dedup.size)
    name = f"{subscription.group or ''} {subscription.pattern}".strip()
    begun: dict[str, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()

    async def once(message: Message) -> object:
        id = message.id
        if not id:
            return await handler(message)
        while (other := begun.get(id)) is not None:
            await asyncio.wait({other})  # the same message, being handled now: see how it ends
        begun[id] = loop.create_future()
        try:
            if await store.handled(name, id):
                return None
            result = await handler(message)
            await store.remember(name, id, dedup.window)
        finally:
            begun.pop(id).set_result(None)
        return result

    return once
