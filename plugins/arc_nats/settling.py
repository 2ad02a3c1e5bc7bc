"""Settling: the verdicts on the deliveries of one feed, from its first to its last."""

from __future__ import annotations

from arc_bus.errors import AlreadySettled, NotSettled
from arc_bus.transport import Delivery, Refused, Verdict
from arc_nats.api import NANOSECONDS
from arc_nats.consumers import Consumer
from arc_nats.session import Session
from arc_nats.verdicts import ACK, Hasty, Verdicts


class Settling:
    """What a feed has delivered and nobody has settled yet, and the ways to settle it."""

    def __init__(self, session: Session, consumer: Consumer) -> None:
        """Hold nothing yet."""
        self._session = session
        self._connection = session.connection
        self._consumer = consumer
        self._closed = False
        self._unsettled: dict[object, float] = {}  # when their deadline began
        wait = consumer.config["ack_wait"]
        assert isinstance(wait, int), "nanoseconds"
        self._deadline = wait / NANOSECONDS
        self._next_look = 0.0
        self._verdicts = Verdicts(
            session.connection, session.inbox, self._failed, confirmed=session.options.confirm_acks
        )

    def _hold(self, deliveries: list[Delivery]) -> None:
        now = self._connection.loop.time()
        self._unsettled.update(dict.fromkeys([delivery.token for delivery in deliveries], now))
        if now >= self._next_look:
            self._next_look = now + self._deadline
            # What is over its deadline comes again under another token; nobody may settle this one.
            earliest = now - self._deadline
            self._unsettled = {
                token: since for token, since in self._unsettled.items() if since > earliest
            }

    async def ack(self, delivery: Delivery) -> None:
        """Settle as done. Raises NotSettled, AlreadySettled."""
        await self._settle(delivery, Verdict.ACK, ACK)

    def ack_soon(self, delivery: Delivery, refused: Refused) -> None:
        """Settle as done, before `close` returns at the latest; `refused` hears if that failed."""
        group, token = self._verdicts.turn.get(ACK), delivery.token
        if group is not None and delivery.verdict is None and isinstance(token, bytes):
            # All but the first of a turn: the group is there, and only while we are connected.
            delivery.verdict = Verdict.ACK
            group.addresses.append(token)
            group.hasty.append((delivery, self._unsettled.pop(token, 0.0), refused))
            return
        try:
            if delivery.settle(Verdict.ACK):
                hasty = (delivery, self._unsettled.pop(token, 0.0), refused)
                try:
                    self._verdicts.ack_soon(self._token(delivery), hasty)
                except NotSettled as error:
                    self._failed(hasty, error)
        except AlreadySettled as error:
            refused(error)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Have it delivered again after `delay` seconds. Raises NotSettled, AlreadySettled."""
        word = b'-NAK {"delay":%d}' % int(delay * 1e9) if delay > 0 else b"-NAK"
        await self._settle(delivery, Verdict.NACK, word)

    async def reject(self, delivery: Delivery) -> None:
        """Have it never delivered again. Raises NotSettled, AlreadySettled."""
        await self._settle(delivery, Verdict.REJECT, b"+TERM")

    async def extend(self, delivery: Delivery) -> None:
        """Restart the deadline; handed to the connection. Raises NotSettled if there is none."""
        if delivery.verdict is None:
            token = self._token(delivery)
            if not self._connection.connected:
                raise NotSettled(f"no connection to {self._session.shown}; expect redelivery")
            self._connection.outbox.send(b"PUB %b 4\r\n+WPI\r\n" % token)
            self._unsettled[token] = self._connection.loop.time()

    async def _settle(self, delivery: Delivery, verdict: Verdict, word: bytes) -> None:
        if not delivery.settle(verdict):
            return
        since = self._unsettled.pop(delivery.token, 0.0)
        try:
            await self._verdicts.say(self._token(delivery), word)
        except NotSettled:
            self._take_back(delivery, since)
            raise

    def _failed(self, hasty: Hasty, error: NotSettled) -> None:
        delivery, since, refused = hasty
        self._take_back(delivery, since)
        refused(error)

    def _take_back(self, delivery: Delivery, since: float) -> None:
        self._unsettled[delivery.token] = since
        delivery.verdict = None  # it can be said again when there is a connection

    def _token(self, delivery: Delivery) -> bytes:
        if self._closed:
            raise NotSettled(
                f"subscription {self._consumer.pattern!r} is closed; expect redelivery"
            )
        token = delivery.token
        assert isinstance(token, bytes), "a delivery of another feed"
        return token

    async def _settle_all(self) -> None:
        """Wait for the server's word on all verdicts, and give back what has none."""
        await self._verdicts.flush()
        self._closed = True
        self._give_back()
        self._verdicts.close()

    def _give_back(self) -> None:
        """Have others get now, not after the deadline, what nobody here will settle any more.

        Not what has been delivered again already: the server would take the word for the new
        delivery's.
        """
        earliest = self._connection.loop.time() - 0.9 * self._deadline
        if self._connection.connected:
            for token, since in self._unsettled.items():
                assert isinstance(token, bytes), "JetStream's reply subject"
                if since > earliest:
                    self._connection.outbox.send(b"PUB %b 4\r\n-NAK\r\n" % token)
        self._unsettled.clear()
