"""Running: a bus that is started; everything that exists only between start and close."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from arc_bus.consumer import Consumer, StopReport
from arc_bus.errors import ConfigError
from arc_bus.handler import Signature, compile_handler
from arc_bus.middleware import Operation
from arc_bus.notice import Notice, NoticeKind
from arc_bus.outlet import Attached
from arc_bus.publisher import Publisher
from arc_bus.reader import Reader
from arc_bus.surroundings import Surroundings
from arc_bus.transport import Outgoing

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.lifespan import Lifespan
    from arc_bus.plugins import Provider
    from arc_bus.policy import Subscription
    from arc_bus.subscribing import Handle


class Running:
    """The publisher, threads, lifespans and started transports of one bus."""

    def __init__(self, bus: Bus, dependencies: Mapping[type, Provider]) -> None:
        """Compile the publisher; `begin()` connects."""
        self.bus = bus
        self.dependencies = dependencies
        plugins = bus.plugins
        self.publisher = Publisher(bus.service, bus.routes, bus.registry, plugins.outboxes())
        self.publisher.publish_middleware = plugins.publish_middleware(bus, Operation.PUBLISH)
        self.publisher.request_middleware = plugins.publish_middleware(bus, Operation.REQUEST)
        self.threads = ThreadPoolExecutor(bus.config.threads, f"{bus.service}-handler")
        self._stack = AsyncExitStack()
        self._loop = asyncio.get_running_loop()

    def check_loop(self) -> None:
        """Raise ConfigError, with the remedy, on another event loop than the bus's, or on none."""
        try:
            if asyncio.get_running_loop() is self._loop:
                return
        except RuntimeError:
            pass  # none runs here
        if self._loop.is_closed():
            raise ConfigError(
                f"the event loop of bus {self.bus.service!r} has ended: start, use and close a bus"
                " within one asyncio.run(...)"
            )
        raise ConfigError(
            f"bus {self.bus.service!r} belongs to the event loop that started it, and was called"
            f" from another, in thread {threading.current_thread().name!r}: there, say"
            " asyncio.run_coroutine_threadsafe(bus.publish(...), loop).result()"
        )

    async def begin(self, handles: Sequence[Handle], lifespans: Sequence[Lifespan]) -> None:
        """Enter plugins' lifespans, start transports, enter the bus's own lifespans, subscribe.

        What subscribes meanwhile sees to itself, and is stopped with the others. A failure undoes
        what was begun.
        """
        async with AsyncExitStack() as starting:
            starting.callback(self.threads.shutdown, wait=False, cancel_futures=True)
            for lifespan in self.bus.plugins.lifespans(self.bus):
                await starting.enter_async_context(lifespan)
            for attached in self.bus.transports:
                starting.push_async_callback(self._quietly, attached, attached.transport.stop)
                await attached.transport.start()
            starting.push_async_callback(self._stop_all)
            for own in lifespans:
                await starting.enter_async_context(own.open(self.bus))
                # Each may have subscribed, and is left after the last message.
                starting.push_async_callback(self._stop_all)
            for handle in handles:
                await handle.activate(self)
            self._stack = starting.pop_all()

    async def end(self, handles: Sequence[Handle], grace: float) -> StopReport:
        """Stop subscriptions, flush publishers, stop transports, leave lifespans; in that order."""
        try:
            report = await self.stop_handles(handles, grace)
        finally:  # a subscription that fails to stop leaves no transport running
            flushes = (
                self._quietly(attached, attached.transport.flush)
                for attached in self.bus.transports
            )
            await asyncio.gather(*flushes)
            await self._stack.aclose()
        return report

    async def _stop_all(self) -> None:
        await self.stop_handles(self.bus.handles, 0.0)

    async def stop_handles(self, handles: Sequence[Handle], grace: float) -> StopReport:
        """Stop all subscriptions at once and add up their reports."""
        reports = await asyncio.gather(*(handle.stop(grace) for handle in handles))
        return sum(reports, StopReport())

    async def _quietly(self, attached: Attached, step: Callable[[], Awaitable[None]]) -> None:
        """Run one step of stopping; its failure is reported and keeps nothing else from running."""
        try:
            await step()
        except Exception as error:
            self.bus.report(Notice(kind=NoticeKind.ERROR, transport=attached.url, error=error))

    def consumer(self, subscription: Subscription, signature: Signature) -> Consumer:
        """Return the compiled, not yet started consumer of a subscription."""
        bus = self.bus
        attached = bus.routes.resolve_pattern(subscription.pattern)
        answer = None
        if not signature.only_watches(subscription):
            answer = partial(self.publisher.answer, attached, subscription.retry)
        return Consumer(
            subscription,
            Reader(signature.payload_type, bus.codecs),
            compile_handler(signature, self.dependencies, self.threads),
            bus.plugins.consume_middleware(bus, subscription),
            Surroundings(
                service=bus.service,
                transport=attached.transport,
                url=attached.url,
                publish_dead=self.send,
                answer=answer,
                report=bus.report,
            ),
        )

    async def send(self, outgoing: Outgoing) -> None:
        """Publish encoded bytes by their route, past every middleware."""
        await self.bus.routes.resolve(outgoing.destination).transport.publish(outgoing)


async def serve(bus: Bus, ready: Callable[[], object] = lambda: None) -> StopReport:
    """Start `bus` if need be, serve until SIGTERM or SIGINT; a second signal ends the grace period.

    `ready` is called once it has started. A signal that comes before that is obeyed then; a second
    one gives the start up, and what had started is stopped again.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    starting: asyncio.Task[None] | None = None

    def on_signal() -> None:
        if asked.is_set():
            bus.hurry()
            if starting is not None:
                starting.cancel()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        if not bus.started:
            starting = loop.create_task(bus.start())
            await _started(starting)
            if starting.cancelled():
                return await bus.close()
            starting = None
        ready()
        await asked.wait()
        return await bus.close()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await bus.close()


async def _started(starting: asyncio.Task[None]) -> None:
    """Wait for the end of a start, which is given up when who waits is cancelled; raise its error.

    One that was given up meanwhile has none.
    """
    try:
        await asyncio.wait({starting})
    except asyncio.CancelledError:
        starting.cancel()
        await asyncio.wait({starting})
        raise
    if not (starting.cancelled() and starting.cancelling()):
        starting.result()
