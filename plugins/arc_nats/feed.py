"""CoreFeed: one subscription of core NATS, which has no verdicts."""

from __future__ import annotations

from arc_bus.errors import Unsupported
from arc_bus.notice import NoticeKind
from arc_bus.transport import Deliver, Delivery, Verdict
from arc_nats.client import Connection
from arc_nats.incoming import Incoming
from arc_nats.parser import Frame, Sink


class CoreFeed:
    """Pushes what arrives; there is no way back for a message that was delivered."""

    def __init__(
        self, connection: Connection, incoming: Incoming, pattern: str, deliver: Deliver
    ) -> None:
        """Read by `incoming`, which the transport's subscriptions share."""
        self._connection = connection
        self._incoming = incoming
        self._pattern = pattern
        self._deliver = deliver
        self._sink: Sink | None = None

    async def start(self, group: str | None) -> None:
        """Begin to receive. Raises ConnectionLost, ConfigError."""
        self._sink = await self._connection.subscribe(self._pattern, self._take, group)

    def _take(self, frames: list[Frame]) -> None:
        deliveries, malformed = self._incoming.read(frames)
        if malformed:
            self._connection.notify(
                NoticeKind.DROPPED,
                f"malformed: {malformed[0].why}",
                pattern=self._pattern,
                count=len(malformed),
            )
        if deliveries:
            self._deliver(deliveries)

    def grant(self, count: int) -> None:
        """Do nothing: the server pushes as it likes."""

    async def ack(self, delivery: Delivery) -> None:
        """Note the verdict; the server does not want to know. Raises AlreadySettled."""
        delivery.settle(Verdict.ACK)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Raise Unsupported."""
        raise Unsupported("core NATS has no redelivery; use a nats+jetstream:// route for that")

    async def reject(self, delivery: Delivery) -> None:
        """Raise Unsupported."""
        raise Unsupported("core NATS has no verdicts; use a nats+jetstream:// route for that")

    async def extend(self, delivery: Delivery) -> None:
        """Raise Unsupported."""
        raise Unsupported("core NATS has no deadlines; use a nats+jetstream:// route for that")

    async def stop(self) -> None:
        """Unsubscribe; when it returns, all that had arrived before was delivered."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            await self._connection.unsubscribe(sink)

    async def close(self) -> None:
        """Unsubscribe, if `stop` has not."""
        await self.stop()

    async def pending(self) -> int | None:
        """Return None: the server keeps nothing."""
        return None
