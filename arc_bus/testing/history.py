"""History: everything that happened between the kit and a transport, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from arc_bus.transport import StartAt, Verdict


class Fate(StrEnum):
    """What is known of a publish."""

    RUNNING = "running"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Publish(msgspec.Struct):
    """One call of `publish` by one client; times are places in the history, not seconds."""

    id: str
    destination: str
    key: str | None
    began: int
    publisher: str = ""
    ended: int | None = None
    fate: Fate = Fate.RUNNING


class Reader(msgspec.Struct):
    """One subscription as the kit made it; times are places in the history.

    It was asked for at `began` and active from `active`. It was told to stop, or its client died,
    at `ended`; nothing may be delivered after `silent`, when that call had returned.
    """

    name: str
    pattern: str
    group: str | None
    start: StartAt
    began: int
    by_key: bool = False
    active: int | None = None
    granted: int = 0
    delivered: int = 0
    ended: int | None = None
    silent: int | None = None

    @property
    def audience(self) -> str:
        """The name of those who share messages with it: its group on its pattern, or itself."""
        return self.name if self.group is None else f"{self.pattern} / {self.group}"


class Settlement(msgspec.Struct):
    """One verdict; `ended` is None while the call runs, or if it failed."""

    verdict: Verdict
    began: int
    ended: int | None = None


class Receipt(msgspec.Struct):
    """One delivery: which message, to whom, and what became of it. `at` is in seconds."""

    id: str | None
    subject: str
    key: str | None
    reader: Reader
    attempt: int
    place: int
    at: float
    settlement: Settlement | None = None
    extended: float | None = None


class History:
    """Records; it judges nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take the clock that says when a delivery came."""
        self._now = now
        self._moments: list[float] = []
        self.publishes: list[Publish] = []
        self.readers: list[Reader] = []
        self.receipts: list[Receipt] = []
        self.faults: list[int] = []

    def place(self) -> int:
        """Return the next place in the order of all that happened."""
        self._moments.append(self._now())
        return len(self._moments)

    def when(self, place: int) -> float:
        """Return the second at which a place was given."""
        return self._moments[place - 1]

    def publish(self, id: str, destination: str, key: str | None, publisher: str = "") -> Publish:
        """Note that a publish by the client `publisher` begins."""
        publish = Publish(id, destination, key, self.place(), publisher)
        self.publishes.append(publish)
        return publish

    def published(self, publish: Publish, fate: Fate) -> None:
        """Note how it ended."""
        publish.ended = self.place()
        publish.fate = fate

    def subscribed(self, name: str, pattern: str, group: str | None, start: StartAt) -> Reader:
        """Note that a subscription is about to be made."""
        reader = Reader(name, pattern, group, start, self.place())
        self.readers.append(reader)
        return reader

    def receive(
        self, reader: Reader, id: str | None, subject: str, key: str | None, attempt: int
    ) -> Receipt:
        """Note a delivery."""
        reader.delivered += 1
        receipt = Receipt(id, subject, key, reader, attempt, self.place(), self._now())
        self.receipts.append(receipt)
        return receipt

    def settle(self, receipt: Receipt, verdict: Verdict) -> Settlement:
        """Note that a verdict is being given, unless one was given before."""
        settlement = Settlement(verdict, self.place())
        if receipt.settlement is None:
            receipt.settlement = settlement
        return settlement

    def fault(self) -> None:
        """Note that the kit breaks the broker, or the way to it."""
        self.faults.append(self.place())

    def audiences(self) -> dict[str, list[Reader]]:
        """Return the readers of each audience, in the order in which they subscribed."""
        found: dict[str, list[Reader]] = {}
        for reader in self.readers:
            found.setdefault(reader.audience, []).append(reader)
        return found

    def received(self, audience: str) -> Iterator[Receipt]:
        """Iterate over what an audience was delivered."""
        return (receipt for receipt in self.receipts if receipt.reader.audience == audience)
