"""Services that stop, and services that are killed, on every transport: nothing is lost.

What may be handled twice is what the history explains, and no more.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from arc_bus import Bus, Guarantee, Message, NoticeKind, Retry, Route, Subscription, hookimpl
from arc_bus.middleware import ConsumeMiddleware, Handler, Slot
from arc_bus.transport import Attempts

if TYPE_CHECKING:
    from tests.arc_bus.conftest import Place  # noqa: TID251 - types only

Until: TypeAlias = Callable[..., Awaitable[None]]

LIVES = 20
MESSAGES = 10_000
SCRIPT = Path(__file__).with_name("killed_service.py")


class Order(msgspec.Struct):
    number: int


class History:
    """A plugin that notes, for each life of a service, what was begun and what was concluded.

    Concluded is a message whose handler returned and whose ack was awaited; what is not may come
    again in a later life. The same event, seen in a handler, would say nothing of the ack.
    """

    def __init__(self) -> None:
        self.begun = defaultdict[int, list[int]](list)
        self.concluded: set[int] = set()
        self.unexplained: list[str] = []
        self.life = 0

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        def note(conclude: Handler) -> Handler:
            life = self.life

            async def noted(message: Message) -> object:
                number = message.payload.number
                if number in self.concluded:
                    self.unexplained.append(f"{number}: {self.begun[number]}, then {life}")
                self.begun[number].append(life)
                result = await conclude(message)
                self.concluded.add(number)
                return result

            return noted

        return [(Slot.DELIVERY, note)]


@pytest.mark.parametrize("asked", [{"batching": False}], ids=[""])
async def test_stopped_and_restarted_20_times_under_load_nothing_is_lost_and_no_repeat_unexplained(
    place: Place, keeper: Bus, until: Until, dice: random.Random
) -> None:
    """10,000 messages; where a stop cuts at-most-once off, what is missing is what was counted."""
    orders, history, handled = place("restarts"), History(), Counter[int]()
    durable = keeper.capabilities(orders).delivery is Guarantee.AT_LEAST_ONCE

    async def handler(order: Order) -> None:
        await asyncio.sleep(dice.random() ** 8 * 0.3)
        handled[order.number] += 1

    @asynccontextmanager
    async def service() -> AsyncGenerator[Bus]:
        bus = place.bus([history])
        bus.subscribe(orders, handler, group="g", concurrency=64)
        async with bus:
            yield bus
        history.life += 1

    async def publish(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, 100):
            window = range(start, min(start + 100, numbers.stop))
            await asyncio.gather(*(keeper.publish(orders, Order(number)) for number in window))

    burst = MESSAGES // LIVES
    for life in range(LIVES):
        async with service() as bus:
            publishing = asyncio.create_task(publish(range(life * burst, (life + 1) * burst)))
            if not durable:
                await publishing  # what is published while nobody is there, nobody can count
            enough = len(history.begun) + dice.randrange(burst // 2)
            await until(lambda: len(history.begun) >= enough or publishing.done(), place.PATIENCE)  # noqa: B023
            await bus.close(dice.choice((0, 0.02, 5)))
        await publishing
    if durable:
        async with service():
            await until(lambda: len(handled) == MESSAGES, place.PATIENCE)
    missing = MESSAGES - len(handled)
    assert missing == (0 if durable else place.count(NoticeKind.ABANDONED))
    assert history.unexplained == []
    repeated = sum(len(lives) - 1 for lives in history.begun.values())
    print(f"{missing} missing, {repeated} repeated over {history.life} lives")  # noqa: T201


@asynccontextmanager
async def process(place: Place, orders: str, stand: str) -> AsyncGenerator[asyncio.StreamReader]:
    """Run `killed_service.py`, ready to receive; it is killed at the end, wherever it stands."""
    routes = {
        prefix: Route(route) if isinstance(route, str) else route
        for prefix, route in place.routes.items()
    }
    told = {
        "orders": orders,
        "stand": stand,
        "routes": {prefix: (route.url, route.options) for prefix, route in routes.items()},
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), json.dumps(told),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert await said(child.stdout) == "ready"
        yield child.stdout
    finally:
        child.kill()
        await child.wait()


async def said(child: asyncio.StreamReader) -> str:
    """Return the next thing that the process says; an empty string if it has ended."""
    async with asyncio.timeout(60):
        return (await child.readline()).decode().strip()


outlives_a_process = pytest.mark.parametrize("place", ["jetstream", "pulsar"], indirect=True)
hasty = pytest.mark.parametrize("asked", [{"ack_deadline": 2.0}], ids=[""])


@hasty
@outlives_a_process
async def test_killed_between_receiving_and_ack_what_it_held_comes_again_and_nothing_twice(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, got = place("killed"), list[tuple[int, bool]]()

    async def handler(order: Order, message: Message) -> None:
        got.append((order.number, message.redelivered))

    async with process(place, orders, "handler") as child:
        for number in range(20):
            await keeper.publish(orders, Order(number))
        assert await said(child) == "handler 0"
    bus = place.bus()
    bus.subscribe(orders, handler, group="g")
    async with bus:
        await until(lambda: len({number for number, _ in got}) == 20, place.PATIENCE)
    assert sorted(number for number, _ in got) == list(range(20)), (
        "each once, 0 for the second time"
    )
    if keeper.capabilities(orders).attempts is Attempts.EXACT:
        assert (0, True) in got, "it is told that a handler may have seen it"


@hasty
@outlives_a_process
async def test_killed_between_its_dead_letter_and_the_settlement_nothing_is_lost_and_one_entry_more(
    place: Place, keeper: Bus, until: Until
) -> None:
    orders, starts = place("buried"), Counter[int]()

    async def handler(order: Order) -> None:
        starts[order.number] += 1
        if order.number == 0:
            raise RuntimeError("poison")

    async with process(place, orders, "buried") as child:
        for number in range(20):
            await keeper.publish(orders, Order(number), message_id=f"order-{number}")
        assert await said(child) == "buried"
        [entry] = await keeper.dead_letters(orders).list()
    assert (entry.message_id, entry.service) == ("order-0", "killed")
    bus = place.bus()
    bus.subscribe(orders, handler, group="g", retry=Retry(attempts=1))
    async with bus:
        await until(lambda: len(starts) == 20, place.PATIENCE)
        await until(lambda: place.count(NoticeKind.DEAD_LETTERED) == 1, place.PATIENCE)
        entries = await bus.dead_letters(orders).list()
    assert starts == Counter(range(20)), "the original came again, once; its neighbours came once"
    # The second entry has the first one's id: where the broker deduplicates there is only one.
    window = keeper.capabilities(orders).publish_dedup
    assert len(entries) == (2 if window is None else 1)
    assert {entry.id for entry in entries} == {entry.id}
