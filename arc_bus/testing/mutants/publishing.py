"""Mutants that publish badly."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import PublishUnconfirmed
from arc_bus.testing.mutants.mutant import Mutant, Subscriber, altered
from arc_bus.transport import Delivery, Outgoing


class DropsOneInAHundred(Mutant):
    """Loses every hundredth message that it publishes."""

    killed_by = ("P2", "D6", "F2", "G2", "A4d")

    def begin(self) -> None:
        self._count = 0

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        self._count += 1
        return [] if self._count % 100 == 0 else [outgoing]


class DropsTheFirst(Mutant):
    """Loses the first message to a subject, as a producer that connects lazily may."""

    killed_by = ("P1", "D1", "D1b", "D8", "P12", "G1", "G5", "G6", "X10", "K1", "W5", "E2")

    def begin(self) -> None:
        self._known: set[str] = set()

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        if outgoing.destination in self._known:
            return [outgoing]
        self._known.add(outgoing.destination)
        return []


class ReusesItsBuffer(Mutant):
    """Sends the body of the message before."""

    killed_by = ("P1", "C1", "Q1")

    def begin(self) -> None:
        self._last: bytes | None = None

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        body, self._last = self._last, outgoing.body
        return [altered(outgoing, body=outgoing.body if body is None else body)]

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        return await super().request(self.sent(outgoing)[0], timeout)


class MatchesPrefixes(Mutant):
    """Delivers to the reader of a subject what is published to any that begins like it."""

    killed_by = ("P3", "W3")

    async def publish(self, outgoing: Outgoing) -> None:
        await super().publish(outgoing)
        to = outgoing.destination
        for peer in self.peers:
            for subscriber in peer.subscribers:
                pattern = subscriber.subscription.pattern
                if to != pattern and to.startswith(pattern.removesuffix(".*")):
                    stray = Delivery(to, outgoing.body, outgoing.headers, outgoing.id, outgoing.key)
                    subscriber.deliver([stray])


class LosesItsBufferAtStop(Mutant):
    """Says that a message is published when it is only in a buffer, which stop() throws away."""

    killed_by = ("P5",)

    def begin(self) -> None:
        self._buffer: list[Outgoing] = []

    async def publish(self, outgoing: Outgoing) -> None:
        if not self._buffer:
            asyncio.get_running_loop().call_later(0.01, self._send)
        self._buffer.append(outgoing)

    def _send(self) -> None:
        buffer, self._buffer = self._buffer, []
        self._sending = asyncio.ensure_future(self._send_all(buffer))

    async def _send_all(self, buffer: list[Outgoing]) -> None:
        for outgoing in buffer:
            await self.inner.publish(outgoing)

    async def stop(self) -> None:
        self._buffer.clear()
        await super().stop()


class FlushHangsWhenIdle(Mutant):
    """Waits in flush() for an answer that comes only if something was published before."""

    killed_by = ("P5b",)

    def begin(self) -> None:
        self._dirty = False

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        self._dirty = True
        return [outgoing]

    async def flush(self) -> None:
        if not self._dirty:
            await asyncio.Event().wait()
        self._dirty = False
        await super().flush()


class ForgetsWhatItPublished(Mutant):
    """Delivers a message as often as it is published, whatever its id: no deduplication."""

    killed_by = ("P8",)

    def begin(self) -> None:
        self._count = 0

    def sent(self, outgoing: Outgoing) -> list[Outgoing]:
        self._count += 1
        number = self.peers.index(self)
        return [altered(outgoing, id=f"{outgoing.id}~{number}~{self._count}")]

    def arrive(self, subscriber: Subscriber, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.id = (delivery.id or "").partition("~")[0]
        subscriber.deliver(batch)


class NeedsAListener(Mutant):
    """Raises when it publishes where nobody listens."""

    killed_by = ("P10",)

    async def publish(self, outgoing: Outgoing) -> None:
        patterns = {s.subscription.pattern for peer in self.peers for s in peer.subscribers}
        if outgoing.destination not in patterns:
            raise PublishUnconfirmed("nobody listens")
        await super().publish(outgoing)


class SwallowsCancellation(Mutant):
    """Ends a cancelled publish() as if it had succeeded, without having published."""

    killed_by = ("E3",)

    async def publish(self, outgoing: Outgoing) -> None:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return
        await super().publish(outgoing)
