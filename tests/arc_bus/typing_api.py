"""The public API as type checkers see it: never run, only checked by mypy and pyright.

A line with an ignore must be an error: both checkers complain of an ignore that is not needed.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_type

import msgspec

from arc_bus import (
    Bus,
    Capabilities,
    Check,
    DeadLetter,
    Envelope,
    Handle,
    Message,
    Retry,
    StopReport,
)


class Request(msgspec.Struct):
    text: str


class Response(msgspec.Struct):
    text: str


bus = Bus("service", {"": "memory://"})


@bus.subscribe("agent.brain.request", group="workers", concurrency=32, retry=Retry(attempts=4))
async def reason(request: Request, message: Message) -> Response:
    return Response(f"{request.text} {message.attempt}")


@bus.subscribe("agent.brain.error")
def plain(event: Envelope[Request]) -> None:
    assert_type(event.payload, Request)


async def the_decorator_keeps_the_function(request: Request, message: Message) -> None:
    assert_type(await reason(request, message), Response)
    await reason(request)  # type: ignore[call-arg]


def a_plain_call_returns_a_handle(handler: Callable[[Request], Awaitable[None]]) -> None:
    assert_type(bus.subscribe("a.b", handler), Handle)
    assert_type(bus.subscribe("a.b", handler, group="g", order_by="text"), Handle)


async def a_request_returns_its_reply_s_type() -> None:
    assert_type(await bus.request("a.b", Request(""), Response), Response)
    assert_type(await bus.gather("a.b", Request(""), Response, most=3), list[Response])


def settings_are_typed(handler: Callable[[Request], Awaitable[None]]) -> None:
    bus.subscribe("a.b", handler, concurrency="many")  # type: ignore[call-overload]
    bus.subscribe("a.b", handler, concurency=3)  # type: ignore[call-overload]
    Bus("service", {}, graze=1.0)  # type: ignore[call-arg]


async def what_a_bus_tells_is_typed() -> None:
    assert_type(await bus.close(), StopReport)
    assert_type(await bus.run(), StopReport)
    assert_type(await bus.health(), list[Check])
    assert_type(bus.capabilities("a.b"), Capabilities)
    assert_type(await bus.dead_letters("a.b").list(), list[DeadLetter])
    async with Bus("service") as running:
        assert_type(running, Bus)
