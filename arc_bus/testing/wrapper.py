"""Wrapped: a transport around another one, from which faults and mutants are made."""

from __future__ import annotations

from collections.abc import AsyncIterator

from arc_bus.policy import Subscription
from arc_bus.transport import Deliver, Delivery, Feed, Outgoing, Transport


class WrappedFeed:
    """Passes everything to the feed inside; a subclass changes what it overrides."""

    def __init__(self, inner: Feed) -> None:
        self.inner = inner

    def grant(self, count: int) -> None:
        """Grant."""
        self.inner.grant(count)

    async def ack(self, delivery: Delivery) -> None:
        """Ack."""
        await self.inner.ack(delivery)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Nack."""
        await self.inner.nack(delivery, delay)

    async def reject(self, delivery: Delivery) -> None:
        """Reject."""
        await self.inner.reject(delivery)

    async def extend(self, delivery: Delivery) -> None:
        """Extend."""
        await self.inner.extend(delivery)

    async def stop(self) -> None:
        """Stop."""
        await self.inner.stop()

    async def close(self) -> None:
        """Close."""
        await self.inner.close()

    async def pending(self) -> int | None:
        """Return what the feed inside says."""
        return await self.inner.pending()


class Wrapped(Transport):
    """Passes everything to the transport inside; a subclass changes what it overrides."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    async def start(self) -> None:
        """Start; only then does the transport inside know all that it can do."""
        await self.inner.start()
        self.capabilities = self.inner.capabilities

    async def stop(self) -> None:
        """Stop."""
        await self.inner.stop()

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish."""
        await self.inner.publish(outgoing)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        """Subscribe."""
        return await self.inner.subscribe(subscription, deliver)

    async def flush(self) -> None:
        """Flush."""
        await self.inner.flush()

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        """Request."""
        return await self.inner.request(outgoing, timeout)

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        """Gather."""
        return await self.inner.gather(outgoing, timeout, most)

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Reply."""
        await self.inner.reply(delivery, outgoing)

    async def retain(self, pattern: str) -> None:
        """Retain."""
        await self.inner.retain(pattern)

    def browse(self, pattern: str) -> AsyncIterator[Delivery]:
        """Browse."""
        return self.inner.browse(pattern)

    async def discard(self, delivery: Delivery) -> None:
        """Discard."""
        await self.inner.discard(delivery)

    async def health(self) -> str | None:
        """Return what the transport inside says."""
        return await self.inner.health()
