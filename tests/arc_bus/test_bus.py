"""A bus's life: all or nothing at start, ordered at stop, obedient to signals."""

# Over 300 lines: the behaviour of one module is shown in one file.

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from arc_bus import (
    Bus,
    Guarantee,
    Message,
    Notice,
    NoticeKind,
    Retry,
    StartAt,
    StopReport,
    Subscription,
)
from arc_bus.errors import (
    BusStopped,
    ConfigError,
    ConnectFailed,
    InvalidName,
    PayloadTooLarge,
    RouteError,
    Unsupported,
)
from arc_bus.transport import Deliver, Feed

Make = Callable[..., Bus]
Until = Callable[..., Awaitable[None]]


class Order(msgspec.Struct):
    number: int


async def never(order: Order) -> None:
    raise AssertionError(order)


def two_transports(faults: Any, seen: Any) -> Bus:
    # Two places, each with a broker of its own that ends with the test.
    routes = {
        "a.": "faulty://?ack_deadline=31",
        "b.": "faulty://?ack_deadline=32",
        "dead.": "memory://",
    }
    bus = Bus("service", routes, [faults])
    bus.observe(seen.append)
    return bus


async def test_when_the_second_transport_fails_to_start_the_first_is_stopped(
    faults: Any, seen: Any
) -> None:
    bus = two_transports(faults, seen)
    bus.subscribe("a.b", never)

    def fail() -> None:
        raise ConnectFailed("nobody is there")

    one, two = faults.transports
    two.on_start = fail
    with pytest.raises(ConnectFailed, match="nobody is there"):
        await bus.start()
    assert await one.health() is not None
    assert await two.health() is not None
    with pytest.raises(BusStopped):
        await bus.publish("a.b", Order(1))
    assert await bus.close() == StopReport()


async def test_when_one_transport_fails_to_stop_the_other_is_stopped_all_the_same(
    faults: Any, seen: Any
) -> None:
    bus = two_transports(faults, seen)

    def fail() -> None:
        raise OSError("cannot stop")

    async with bus:
        one, two = faults.transports
        two.on_stop = fail
    assert await one.health() is not None
    assert [str(notice.error) for notice in seen.of(NoticeKind.ERROR)] == ["cannot stop"]
    assert seen.of(NoticeKind.STOPPED)


async def test_a_subscription_that_fails_to_stop_leaves_no_transport_running(
    memory_bus: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = memory_bus()
    handle = bus.subscribe("a.b", never)
    await bus.start()

    async def stop(grace: float) -> StopReport:
        raise LookupError("a bug of a feed")

    assert handle._consumer is not None
    monkeypatch.setattr(handle._consumer, "stop", stop)
    with pytest.raises(LookupError):
        await bus.close()
    assert await bus.transports[0].transport.health() is not None
    assert not bus.started


async def test_a_subscription_that_its_route_cannot_keep_stops_the_start_before_anything_connects(
    faults: Any, seen: Any
) -> None:
    routes = {"a.": "at-most-once://", "b.": "memory://", "dead.": "memory://"}
    bus = Bus("service", routes, [faults])
    bus.observe(seen.append)
    bus.subscribe("a.b", never, require=Guarantee.AT_LEAST_ONCE)
    with pytest.raises(Unsupported, match=r"'a\.b'.*at-least-once.*'b'"):
        await bus.start()
    assert seen == []


async def test_a_subscription_whose_dead_letters_have_no_route_is_refused() -> None:
    bus = Bus("service", {"a.": "memory://"})
    bus.subscribe("a.b", never)
    with pytest.raises(RouteError, match=r"'dead\.a\.b'.*dead_letter=None"):
        await bus.start()
    bus = Bus("service", {"a.": "memory://"})
    bus.subscribe("a.b", never, dead_letter=None)
    async with bus:
        assert all(check.ok for check in await bus.health())


async def test_a_start_position_that_the_route_lacks_is_refused(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = Bus("service", {"": "faulty://"}, [faults])
    only_new = msgspec.structs.replace(
        faults.transport.capabilities, start=frozenset({StartAt.NEW})
    )
    monkeypatch.setattr(faults.transport, "capabilities", only_new)
    bus.subscribe("a.b", never, start=StartAt.EARLIEST)
    with pytest.raises(Unsupported, match=r"start='earliest'; this route can: new"):
        await bus.start()


async def test_a_bus_is_used_once(memory_bus: Make) -> None:
    bus = memory_bus()
    async with bus:
        with pytest.raises(BusStopped, match="started before"):
            await bus.start()
    for call in (bus.publish("a.b", Order(1)), bus.request("a.b", Order(1), Order)):
        with pytest.raises(BusStopped, match="the bus is closed"):
            await call
    with pytest.raises(BusStopped, match="closed"):
        bus.subscribe("a.b", never)
    with pytest.raises(BusStopped):
        await bus.start()


async def test_before_the_start_it_says_how_to_start_it(memory_bus: Make) -> None:
    bus = memory_bus()
    with pytest.raises(BusStopped, match="not started; use `async with bus:`"):
        await bus.publish("a.b", Order(1))


@pytest.mark.virtual_time
async def test_closing_twice_waits_for_the_first_and_gives_its_report(
    memory_bus: Make, until: Until
) -> None:
    bus, started = memory_bus(), asyncio.Event()

    async def slow(_order: Order) -> None:
        started.set()
        await asyncio.sleep(5)

    bus.subscribe("a.b", slow, group="g")
    async with bus:
        await bus.publish("a.b", Order(1))
        await started.wait()
        reports = await asyncio.gather(bus.close(), bus.close(), bus.close(grace=0))
    assert list(reports) == [StopReport(finished=1)] * 3
    assert await bus.close() == StopReport(finished=1)


async def test_closing_a_bus_that_never_started_is_no_error(memory_bus: Make) -> None:
    assert await memory_bus().close() == StopReport()


@pytest.mark.virtual_time
async def test_a_close_whose_caller_is_cancelled_goes_on(memory_bus: Make) -> None:
    bus, finished, started = memory_bus(), list[int](), asyncio.Event()

    async def slow(order: Order) -> None:
        started.set()
        await asyncio.sleep(5)
        finished.append(order.number)

    bus.subscribe("a.b", slow, group="g")
    await bus.start()
    await bus.publish("a.b", Order(1))
    await started.wait()
    closing = asyncio.create_task(bus.close())
    await asyncio.sleep(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await bus.close() == StopReport(finished=1)
    assert finished == [1]


async def test_an_observer_that_fails_harms_neither_the_bus_nor_other_observers(
    memory_bus: Make, seen: Any, until: Until
) -> None:
    def broken(notice: Notice) -> None:
        raise RuntimeError(f"on {notice.kind}")

    bus, later = memory_bus(), list[Notice]()
    bus.observe(broken)
    bus.observe(later.append)

    async def fails(_order: Order) -> None:
        raise RuntimeError("no")

    bus.subscribe("a.b", fails, retry=Retry(attempts=1))
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: seen.of(NoticeKind.DEAD_LETTERED))
    assert later == seen


async def test_health_tells_of_transports_and_subscriptions_before_while_and_after(
    memory_bus: Make,
) -> None:
    bus = memory_bus()
    bus.subscribe("a.b", never)
    before = await bus.health()
    async with bus:
        running = await bus.health()
    after = await bus.health()
    assert [(check.name, check.ok) for check in before] == [("memory://", False), ("a.b", False)]
    assert [(check.name, check.ok) for check in running] == [("memory://", True), ("a.b", True)]
    assert not after[0].ok


def taking(got: list[int]) -> Callable[[Order], Awaitable[None]]:
    """A handler that notes the numbers it gets."""

    async def take(order: Order) -> None:
        got.append(order.number)

    return take


async def test_a_subscription_on_a_running_bus_is_active_once_awaited(
    memory_bus: Make, until: Until
) -> None:
    bus, got = memory_bus(), list[int]()

    async with bus:
        handle = await bus.subscribe("a.b", taking(got))
        await bus.publish("a.b", Order(1))
        await until(lambda: got)
        assert (await handle.health()).ok
    assert got == [1]


def held_up(bus: Bus) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold up each subscribing at the bus's transport: an event when it begins, one to let it."""
    transport = bus.transports[0].transport
    begun, go, subscribe = asyncio.Event(), asyncio.Event(), transport.subscribe

    async def slowly(subscription: Subscription, deliver: Deliver) -> Feed:
        begun.set()
        await go.wait()
        return await subscribe(subscription, deliver)

    transport.subscribe = slowly  # type: ignore[method-assign]
    return begun, go


async def test_who_waits_for_a_subscription_no_longer_does_not_cancel_it(
    memory_bus: Make, until: Until
) -> None:
    bus, got = memory_bus(), list[int]()

    async with bus:
        begun, go = held_up(bus)
        handle = bus.subscribe("a.b", taking(got))

        async def wait() -> None:
            await handle

        waiting = asyncio.create_task(wait())
        await begun.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        go.set()
        await handle
        await bus.publish("a.b", Order(1))
        await until(lambda: got)


async def test_a_subscription_that_cannot_be_on_a_running_bus_is_refused_and_forgotten(
    memory_bus: Make,
) -> None:
    bus = Bus("service", {"a.": "memory://"})
    async with bus:
        with pytest.raises(RouteError):
            bus.subscribe("b.c", never)
        with pytest.raises(RouteError, match="dead letters"):
            bus.subscribe("a.b", never)
        assert bus.handles == ()


async def test_a_handle_cannot_be_steered_before_it_is_active(memory_bus: Make) -> None:
    handle = memory_bus().subscribe("a.b", never)
    with pytest.raises(ConfigError, match=r"'a\.b' is not active yet"):
        handle.pause()
    assert handle.in_flight == 0


@pytest.mark.parametrize(
    ("destination", "error"),
    [("a.*", InvalidName), ("a b", InvalidName), ("$SYS.x", InvalidName), ("z.y", RouteError)],
)
async def test_a_wrong_destination_is_refused_on_every_way_out(
    destination: str, error: type[Exception]
) -> None:
    async with Bus("service", {"a.": "memory://"}) as bus:
        for call in (
            bus.publish(destination, Order(1)),
            bus.request(destination, Order(1), Order),
            bus.gather(destination, Order(1), Order, most=1),
        ):
            with pytest.raises(error):
                await call


async def test_what_is_too_large_is_refused_before_the_wire(memory_bus: Make) -> None:
    async with memory_bus("memory://?max_payload=1000") as bus:
        await bus.publish("a.b", b"x" * 500)
        with pytest.raises(PayloadTooLarge, match="1000"):
            await bus.publish("a.b", b"x" * 1001)


async def test_what_a_handler_publishes_goes_on_with_its_trace(
    memory_bus: Make, until: Until
) -> None:
    bus, traces = memory_bus(), dict[str, str]()

    @bus.subscribe("a.first")
    async def first(order: Order, message: Message, bus: Bus) -> None:
        traces["first"] = message.envelope.trace_id
        await bus.publish("a.second", order)

    @bus.subscribe("a.second")
    async def second(_order: Order, message: Message) -> None:
        traces["second"] = message.envelope.trace_id

    async with bus:
        await bus.publish("a.first", Order(1))
        await until(lambda: len(traces) == 2)
    assert traces["first"] == traces["second"]


async def test_ten_thousand_destinations_are_compiled_and_the_oldest_forgotten(
    memory_bus: Make,
) -> None:
    async with memory_bus() as bus:
        for number in range(10_050):
            await bus.publish(f"a.n{number}", {})
        await bus.publish("a.n0", {})


# -- signals, in a process of their own

PROGRAM = """
import asyncio, sys
from arc_bus import Bus

bus = Bus("service", {"": "memory://"}, grace=float(sys.argv[1]))

@bus.subscribe("a.b", group="g")
async def handler(said: dict) -> None:
    print("started", flush=True)
    try:
        await asyncio.sleep(said["seconds"])
        print("finished", flush=True)
    except asyncio.CancelledError:
        print("cut off", flush=True)
        raise

async def main() -> None:
    running = asyncio.create_task(bus.run())
    while not all(check.ok for check in await bus.health()):
        await asyncio.sleep(0.01)
    await bus.publish("a.b", {"seconds": float(sys.argv[2])})
    print(await running, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def serve() -> Any:
    """Start the program and wait until its handler runs; whatever happens, it ends."""
    children: list[subprocess.Popen[str]] = []

    def start(grace: float, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(grace), str(seconds)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_handlers_finish(serve: Any, number: signal.Signals) -> None:
    child = serve(60, 0.5)
    child.send_signal(number)
    out, _ = child.communicate(timeout=60)
    assert out == "finished\nStopReport(finished=1, returned=0, abandoned=0)\n"
    assert child.returncode == 0


def test_a_second_signal_is_immediate(serve: Any) -> None:
    """The handler would take an hour, and the grace as long."""
    child = serve(3600, 3600)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert out == "cut off\nStopReport(finished=0, returned=0, abandoned=1)\n"
    assert child.returncode == 0


HANGS = """
import asyncio
from collections.abc import AsyncIterator
from arc_bus import Bus

bus = Bus("service", {"": "memory://"})

@bus.lifespan
async def resource(bus: Bus) -> AsyncIterator[None]:
    print("starting", flush=True)
    try:
        await asyncio.Event().wait()
        yield
    finally:
        print("let go", flush=True)

print(asyncio.run(bus.run()), flush=True)
"""


def test_a_second_signal_gives_up_a_start_that_has_no_end() -> None:
    command = [sys.executable, "-c", HANGS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "starting\n"
            child.send_signal(signal.SIGTERM)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert out == "let go\nStopReport(finished=0, returned=0, abandoned=0)\n"
    assert child.returncode == 0


EXITS = """
import asyncio, sys
from arc_bus import Bus

bus = Bus("service", {"": "memory://"}, grace=60)

@bus.subscribe("a.b", group="g", concurrency=1)
async def handler(said: dict) -> None:
    sys.exit(3)

async def main() -> None:
    async with bus:
        for _ in range(3):
            await bus.publish("a.b", {})
        try:
            await asyncio.Event().wait()
        finally:
            print(await bus.close(), flush=True)

asyncio.run(main())
"""


def test_a_handler_that_ends_the_process_ends_it_and_its_message_is_abandoned() -> None:
    child = subprocess.run(
        [sys.executable, "-c", EXITS], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.stdout == "StopReport(finished=0, returned=2, abandoned=1)\n"
    assert child.returncode == 3


async def test_a_run_that_is_cancelled_closes_its_bus(memory_bus: Make, until: Until) -> None:
    bus = memory_bus()
    running = asyncio.create_task(bus.run())
    transport = bus.transports[0].transport
    async with asyncio.timeout(30):
        while await transport.health() is not None:  # noqa: ASYNC110 - it tells no event
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await transport.health() is not None


async def test_a_subscription_made_while_the_bus_starts_gets_each_message_once(
    memory_bus: Make, until: Until
) -> None:
    bus = memory_bus()
    got: list[int] = []

    async def handler(said: dict[str, object]) -> None:
        got.append(1)

    @bus.lifespan
    async def resource(bus: Bus) -> AsyncIterator[None]:
        await bus.subscribe("a.b", handler)
        yield

    async with bus:
        assert len(bus.handles) == 1
        await bus.publish("a.b", {})
        await until(lambda: bool(got))
        await bus.close()
    assert got == [1]


async def test_a_subscription_stopped_while_the_bus_starts_never_becomes_active(
    memory_bus: Make,
) -> None:
    bus = memory_bus()

    async def handler(said: dict[str, object]) -> None:
        raise AssertionError("it was stopped")

    stopped = bus.subscribe("a.b", handler)
    kept = bus.subscribe("c.d", handler)

    @bus.lifespan
    async def resource(bus: Bus) -> AsyncIterator[None]:
        await stopped.stop()
        yield

    async with bus:
        assert bus.handles == (kept,)
        with pytest.raises(ConfigError, match="not active"):
            stopped.pause()
        kept.pause()


async def test_a_subscription_stopped_while_it_becomes_active_does_not_stay_so(
    memory_bus: Make,
) -> None:
    bus = memory_bus()
    handle = bus.subscribe("a.b", never)
    begun, go = held_up(bus)
    starting = asyncio.create_task(bus.start())
    await begun.wait()
    assert await handle.stop() == StopReport()
    go.set()
    await starting
    await bus.publish("a.b", Order(1))
    assert bus.handles == ()
    assert not (await handle.health()).ok
    await bus.close()


async def test_a_start_that_fails_stops_what_its_lifespans_have_subscribed(
    memory_bus: Make,
) -> None:
    bus, began, left = memory_bus(), asyncio.Event(), list[str]()

    async def handler(order: Order) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append("handler")

    @bus.lifespan
    async def first(bus: Bus) -> AsyncIterator[None]:
        await bus.subscribe("a.b", handler)
        await bus.publish("a.b", Order(1))
        await began.wait()
        yield
        left.append("first")

    @bus.lifespan
    async def second(bus: Bus) -> AsyncIterator[None]:
        if bus.handles:
            raise LookupError("no such thing")
        yield

    with pytest.raises(LookupError):
        await bus.start()
    assert left == ["handler", "first"]


@pytest.mark.parametrize("whole", [True, False])
async def test_a_handler_that_would_wait_for_its_own_end_is_told_so_at_once(
    memory_bus: Make, until: Until, whole: bool
) -> None:
    bus, told, stops = memory_bus(), list[str](), list[asyncio.Task[StopReport]]()

    async def handler(order: Order) -> None:
        try:
            await (bus.close() if whole else handle.stop())
        except ConfigError as error:
            told.append(str(error))
            stops.append(asyncio.create_task(bus.close() if whole else handle.stop()))

    handle = bus.subscribe("a.b", handler, group="g")
    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: stops)
        assert await stops[0] == StopReport()
    assert "a handler of 'a.b' cannot wait for its own end" in told[0]


async def test_another_event_loop_is_told_how_to_reach_the_bus(memory_bus: Make) -> None:
    bus = memory_bus()
    bus.subscribe("a.b", never)

    def elsewhere(use: Callable[[], Any]) -> None:
        async def on_a_loop() -> None:
            await use()

        with pytest.raises(ConfigError, match=r"run_coroutine_threadsafe\(bus\.publish"):
            asyncio.run(on_a_loop())

    async with bus:
        for use in (
            lambda: bus.publish("c.d", Order(1)),
            lambda: bus.request("c.d", Order(1), Order),
            lambda: bus.gather("c.d", Order(1), Order, most=1),
            lambda: bus.subscribe("c.d", never),
            bus.close,
        ):
            await asyncio.to_thread(elsewhere, use)
        with pytest.raises(ConfigError, match="in thread 'asyncio_"):  # where no loop runs at all
            await asyncio.to_thread(bus.subscribe, "c.d", never)
        assert len(bus.handles) == 1
        assert bus.started


async def test_a_future_of_another_loop_is_told_as_what_it_is(
    faulty_bus: Make, faults: Any
) -> None:
    bus = faulty_bus()
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()

    async def confirmed(_outgoing: object) -> None:
        await waiting

    faults.transport.publish = confirmed
    async with bus:
        first = loop.create_task(bus.publish("a.b", Order(1)))
        await asyncio.sleep(0)  # compiled by now
        with pytest.raises(ConfigError, match="belongs to the event loop that started it"):
            await asyncio.to_thread(asyncio.run, bus.publish("a.b", Order(2)))
        waiting.set_result(None)
        await first


async def test_a_runtime_error_on_the_right_loop_is_not_about_loops(
    faulty_bus: Make, faults: Any
) -> None:
    async def broken(_outgoing: object) -> None:
        raise RuntimeError("something else")

    bus = faulty_bus()
    faults.transport.publish = broken
    async with bus:
        with pytest.raises(RuntimeError, match="something else"):
            await bus.publish("a.b", Order(1))


def test_a_bus_whose_loop_has_ended_says_so(memory_bus: Make) -> None:
    bus = memory_bus()
    asyncio.run(bus.start())
    with pytest.raises(ConfigError, match=r"has ended: start, use and close .* one asyncio\.run"):
        asyncio.run(bus.publish("a.b", Order(1)))


async def test_a_handler_in_a_thread_publishes_on_the_buss_loop_in_its_messages_trace(
    memory_bus: Make, until: Until
) -> None:
    bus, heard = memory_bus(), list[Message]()
    loop = asyncio.get_running_loop()

    @bus.subscribe("a.b")
    def plain(order: Order, bus: Bus) -> None:
        asyncio.run_coroutine_threadsafe(bus.publish("c.d", order), loop).result()

    @bus.subscribe("c.d")
    async def follow(_order: Order, message: Message) -> None:
        heard.append(message)

    @bus.subscribe("a.b")
    async def watch(_order: Order, message: Message) -> None:
        heard.append(message)

    async with bus:
        await bus.publish("a.b", Order(1))
        await until(lambda: len(heard) == 2)
        assert len({message.trace_id for message in heard}) == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("where", ["entered", "left"])
@pytest.mark.parametrize("how", ["close", "start", "run"])
async def test_a_lifespan_cannot_wait_for_its_own_bus(
    memory_bus: Make, where: str, how: str
) -> None:
    bus = memory_bus()
    refused: list[str] = []

    async def attempt() -> None:
        try:
            await getattr(bus, how)()
        except (ConfigError, BusStopped) as error:
            refused.append(str(error))

    @bus.lifespan
    async def impatient(bus: Bus) -> AsyncIterator[None]:
        if how == "run":  # it serves until it is told to end
            asyncio.get_running_loop().call_later(1.0, signal.raise_signal, signal.SIGTERM)
        if where == "entered":
            await attempt()
        yield
        if where == "left":
            await attempt()

    async with asyncio.timeout(10):
        async with bus:
            assert bus.started
    [says] = refused
    assert ("started before" if how == "start" else "let a task of its own close the bus") in says
