"""A client in a process of its own, which the kit kills: `python -m arc_bus.testing.victim ORDER`.

The order is JSON; what has happened is printed, one message id a line, after it has.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from arc_bus.plugins import Plugins
from arc_bus.policy import Subscription
from arc_bus.transport import Delivery, Endpoint, Outgoing, Transport


class Role(StrEnum):
    """What a victim does until it is killed."""

    PUBLISH = "publish"
    HOLD = "hold"
    ACK = "ack"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a victim is told. `ids` are published in turn; a reader gets as many messages."""

    url: str
    role: Role
    subject: str
    ids: tuple[str, ...]
    group: str | None = None
    options: object = None
    subscription_options: object = None


Say: TypeAlias = Callable[[str], None]
"""Tells the kit what has happened: "ready", then one message id after the other."""


async def live(transport: Transport, order: Order, say: Say) -> None:
    """Do what the order says with a transport, then wait to be killed."""
    await transport.start()
    if order.role is Role.PUBLISH:
        say("ready")
        for id in order.ids:
            await transport.publish(Outgoing(order.subject, b"from a victim", {}, id))
            say(id)
    else:
        await _read(transport, order, say)
    await asyncio.Event().wait()


async def _read(transport: Transport, order: Order, say: Say) -> None:
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    def deliver(batch: list[Delivery]) -> None:
        for delivery in batch:
            arrived.put_nowait(delivery)

    subscription = Subscription(
        pattern=order.subject, group=order.group, options=order.subscription_options
    )
    feed = await transport.subscribe(subscription, deliver)
    feed.grant(len(order.ids))
    say("ready")
    while True:
        delivery = await arrived.get()
        if order.role is Role.ACK:
            await feed.ack(delivery)
        say(delivery.id or "")


def _print(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Live as the first argument says."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    transport = Plugins().transport(Endpoint(url=order.url, options=order.options))
    asyncio.run(live(transport, order, _print))


if __name__ == "__main__":
    main()
