"""A client in a process of its own, which the kit kills: `python -m arc_bus.testing.victim ORDER`.

The order is JSON; what has happened is printed, one message id a line, after it has.
"""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum

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


def _say(word: str | None) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(order: Order) -> None:
    """Do what the order says, then wait to be killed."""
    transport = Plugins().transport(Endpoint(url=order.url, options=order.options))
    await transport.start()
    if order.role is Role.PUBLISH:
        _say("ready")
        for id in order.ids:
            await transport.publish(Outgoing(order.subject, b"from a victim", {}, id))
            _say(id)
    else:
        await _read(transport, order)
    await asyncio.Event().wait()


async def _read(transport: Transport, order: Order) -> None:
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    def deliver(batch: list[Delivery]) -> None:
        for delivery in batch:
            arrived.put_nowait(delivery)

    subscription = Subscription(
        pattern=order.subject, group=order.group, options=order.subscription_options
    )
    feed = await transport.subscribe(subscription, deliver)
    feed.grant(len(order.ids))
    _say("ready")
    while True:
        delivery = await arrived.get()
        if order.role is Role.ACK:
            await feed.ack(delivery)
        _say(delivery.id)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
