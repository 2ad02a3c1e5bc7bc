"""A service in a process of its own, which its test kills: where it stands, it says and waits.

Its one argument is JSON: the `routes`, the destination to subscribe to, and `stand`, the place to
stop at. "handler" is in the handler, between receiving and ack; "buried" is after its dead letter
was confirmed and before the original is settled.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import NoReturn

from arc_bus import Bus, Notice, NoticeKind, Retry, Route

told = json.loads(sys.argv[1])


def stand(where: str) -> NoReturn:
    """Say it, and do nothing more until the kill comes: the event loop stands still as well."""
    print(where, flush=True)  # noqa: T201 - this is what the test waits for
    sys.stdin.read()  # it ends with the test, should that forget to kill
    raise SystemExit(1)


async def handle(order: dict[str, int]) -> None:
    """Stand still, or fail."""
    if told["stand"] == "handler":
        stand(f"handler {order['number']}")
    raise RuntimeError("poison")


def observe(notice: Notice) -> None:
    """Stand still when the dead letter is confirmed: it is reported before the settlement."""
    if notice.kind is NoticeKind.DEAD_LETTERED:
        stand("buried")


async def main() -> None:
    """Serve until the end."""
    routes = {prefix: Route(url, options) for prefix, (url, options) in told["routes"].items()}
    bus = Bus("killed", routes)
    bus.observe(observe)
    bus.subscribe(
        told["orders"], handle, group="g", concurrency=1, prefetch=50, retry=Retry(attempts=1)
    )
    async with bus:
        print("ready", flush=True)  # noqa: T201 - the same
        await asyncio.Event().wait()


asyncio.run(main())
