"""The dedup layer: a message id that this subscription has handled is skipped, and acked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from arc_bus.message import Message
from arc_bus.middleware import Handler
from arc_bus.policy import Dedup


def deduplicated(handler: Handler, dedup: Dedup | None) -> Handler:
    """Skip ids whose handler has returned; an id counts as done after success, never before."""
    if dedup is None:
        return handler
    done: OrderedDict[str, float] = OrderedDict()
    begun: dict[str, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()
    window, size = dedup.window, dedup.size

    async def once(message: Message) -> object:
        id = message.id
        if not id:
            return await handler(message)
        while (other := begun.get(id)) is not None:
            await asyncio.wait({other})  # the same message, being handled now: see how it ends
        while done and next(iter(done.values())) < loop.time() - window:
            done.popitem(last=False)
        if id in done:
            return None
        begun[id] = loop.create_future()
        try:
            result = await handler(message)
            done[id] = loop.time()
            if len(done) > size:
                done.popitem(last=False)
        finally:
            begun.pop(id).set_result(None)
        return result

    return once
