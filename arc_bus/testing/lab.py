"""Lab: where one check tries a transport, and records all of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping

from arc_bus.bus import Bus
from arc_bus.deadletter import DeadLetter, read
from arc_bus.hookspecs import hookimpl
from arc_bus.testing.check import NotConforming
from arc_bus.testing.client import Client
from arc_bus.testing.harness import Harness
from arc_bus.testing.history import History
from arc_bus.testing.judge import lost, owed, wrongs
from arc_bus.transport import Capabilities, Transport, TransportFactory

_SCHEME = "conformance"


class _Given:
    """A plugin that serves a scheme with one transport that is there already."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @hookimpl
    def arc_transports(self) -> Mapping[str, TransportFactory]:
        return {_SCHEME: lambda _endpoint: self._transport}


class Lab:
    """Clients of one transport, the history of what they did, and the means to wait for more."""

    def __init__(self, harness: Harness, capabilities: Capabilities) -> None:
        self.harness = harness
        self.capabilities = capabilities
        self.timings = harness.timings
        self.now = asyncio.get_running_loop().time
        self.history = History(self.now)
        self.clients: list[Client] = []
        self._ids = (f"conformance-{number}" for number in itertools.count(1))
        self._changed = asyncio.Event()
        self._failure: NotConforming | None = None
        harness.on_notice = self.changed

    def new_id(self) -> str:
        """Return a message id that is new in this lab."""
        return next(self._ids)

    def subject(self, name: str = "m") -> str:
        """Return a destination that nobody has used."""
        return self.harness.subject(name)

    def group(self) -> str | None:
        """Return a group that nobody has used; none on a transport that has no groups."""
        return self.harness.group() if self.capabilities.groups else None

    async def client(self) -> Client:
        """Return a new client, started; it is stopped when the check ends."""
        client = Client(self, self.connect(), f"client {len(self.clients) + 1}")
        self.clients.append(client)
        await client.transport.start()
        return client

    def connect(self) -> Transport:
        """Return a transport that is not started, and that the check itself must stop."""
        return self.harness.connect()

    def bus(self, transport: Transport | None = None) -> Bus:
        """Return a bus, not started, with everything on a transport: a client of its own, if none.

        What it does is not in the history; the check itself must judge that, and close the bus.
        """
        made = self.connect() if transport is None else transport
        return Bus("conformance", {"": f"{_SCHEME}://"}, [_Given(made)])

    async def letters(self, bus: Bus, dead: str) -> AsyncGenerator[DeadLetter]:
        """Iterate over the dead letters that a bus of this lab has at the destination `dead`."""
        async for delivery in bus.transports[0].transport.browse(dead):
            yield read(delivery)

    def changed(self) -> None:
        """Wake those who wait for something to arrive."""
        self._changed.set()

    def fail(self, failure: NotConforming) -> None:
        """Let the check fail with what went wrong beside it."""
        self._failure = self._failure or failure
        self.changed()

    async def until(
        self, reached: Callable[[], bool], otherwise: Callable[[], str], within: float | None = None
    ) -> None:
        """Wait until `reached`, looking whenever something was delivered.

        Raises NotConforming with what `otherwise` says after `within` seconds (default: `arrive`).
        """
        patience = self.timings.arrive if within is None else within
        try:
            async with asyncio.timeout(patience):
                while not reached() and self._failure is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotConforming(f"{otherwise()} within {patience} s") from None
        if self._failure is not None:
            raise self._failure

    async def quiet(self) -> None:
        """Let pass the time in which nothing may come; only where no later message can prove it."""
        await asyncio.sleep(self.timings.quiet)

    async def all_arrived(self) -> None:
        """Wait until each audience got all it is owed. Raises NotConforming naming what is lost."""
        open_debts = {
            (audience, publish.id)
            for audience in self.history.audiences()
            for publish in owed(self.history, audience, self.capabilities)
        }
        looked_at = 0

        def paid() -> bool:
            nonlocal looked_at
            for receipt in self.history.receipts[looked_at:]:
                open_debts.discard((receipt.reader.audience, receipt.id or ""))
            looked_at = len(self.history.receipts)
            return not open_debts

        await self.until(paid, lambda: f"{'; '.join(lost(self.history, self.capabilities))};")

    async def fence(self, client: Client, *subjects: str) -> None:
        """Return when all that will come of what was published before has come.

        One more message is published to each of `subjects`, and every audience waited for; where
        the transport does not promise that it comes last, `quiet` has to pass in addition.
        """
        for subject in subjects:
            await client.publish(subject)
        await self.all_arrived()
        await self.quiet()

    def expect(self, right: bool, otherwise: str) -> None:
        """Raise NotConforming(otherwise) unless `right`."""
        if not right:
            raise NotConforming(otherwise)

    def judge(self) -> None:
        """Raise NotConforming with all that never may happen and did."""
        found = wrongs(self.history, self.capabilities)
        if self._failure is not None:
            raise self._failure
        if found:
            more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
            raise NotConforming("; ".join(found[:5]) + more)

    async def close(self) -> None:
        """Stop every client."""
        for client in self.clients:
            await client.stop()
