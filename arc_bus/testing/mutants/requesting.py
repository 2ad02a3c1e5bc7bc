"""Mutants that answer requests badly."""

from __future__ import annotations

# ruff: noqa: D102 - an overridden method's contract is the overridden one's.
import asyncio

from arc_bus.errors import NoResponders, RequestTimeout
from arc_bus.testing.mutants.mutant import Mutant, altered, copied
from arc_bus.transport import Delivery, Outgoing


class SwapsReplies(Mutant):
    """Sends each second reply to the requester before."""

    killed_by = ("Q1", "Q5")

    def begin(self) -> None:
        self._held: tuple[Delivery, Outgoing] | None = None

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        held, self._held = self._held, (delivery, outgoing)
        if held is not None:
            await super().reply(delivery, held[1])
            await super().reply(held[0], outgoing)
            self._held = None


class AnswersSilence(Mutant):
    """Returns an empty reply when the time is over."""

    killed_by = ("Q2", "Q3")

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        try:
            return await super().request(outgoing, timeout)
        except RequestTimeout:
            return Delivery(outgoing.destination, b"", {})


class GivesUpEarly(Mutant):
    """Waits a tenth of the time it was given."""

    killed_by = ("Q2", "Q7")

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        return await super().request(outgoing, timeout / 10)

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        return await super().gather(outgoing, timeout / 10, most)


class HasOneInbox(Mutant):
    """Takes the next reply that comes for the one it waits for."""

    killed_by = ("Q3", "Q11")

    def begin(self) -> None:
        self._late: list[Outgoing] = []
        self._asked: set[str | None] = set()

    async def reply(self, delivery: Delivery, outgoing: Outgoing) -> None:
        for peer in self.peers:
            if isinstance(peer, HasOneInbox) and outgoing.body == b"late":
                peer._late.append(outgoing)
        await super().reply(delivery, outgoing)

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        reply = await super().request(outgoing, timeout)
        if self._late:
            late = self._late.pop()
            return copied(reply, body=late.body)
        return reply


class WaitsForNobody(Mutant):
    """Finds out that nobody listens by waiting the whole time."""

    killed_by = ("Q4", "Q4b")

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        try:
            return await super().request(outgoing, timeout)
        except NoResponders:
            await asyncio.sleep(timeout)
            raise RequestTimeout("no reply") from None


class GathersWhatItWants(Mutant):
    """Collects replies until the time is over, however many were asked for."""

    killed_by = ("Q7",)

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        return await super().gather(outgoing, timeout, most + 1)


class CannotGatherNothing(Mutant):
    """Raises when there is nobody to gather from."""

    killed_by = ("Q8",)

    async def gather(self, outgoing: Outgoing, timeout: float, most: int) -> list[Delivery]:
        replies = await super().gather(outgoing, timeout, most)
        if not replies:
            raise NoResponders("nobody listens")
        return replies


class AsksTwice(Mutant):
    """Sends a request again at once, in case the first got lost."""

    killed_by = ("Q2", "Q6", "Q5")

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        again = altered(outgoing)
        first = asyncio.ensure_future(super().request(outgoing, timeout))
        second = asyncio.ensure_future(super().request(again, timeout))
        try:
            await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            return (first if first.done() else second).result()
        finally:
            first.cancel()
            second.cancel()


class SurvivesCancellation(Mutant):
    """Goes on waiting when a request is cancelled, and returns what comes."""

    killed_by = ("Q11",)

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        asking = asyncio.ensure_future(super().request(outgoing, timeout))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.cancel()
            return Delivery(outgoing.destination, b"", {})
