"""Accounts: what was published, delivered and stored on every route, and what is missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from arc_bus.routing import Routes, matches
from voice.ledger import Attempt, CallOver, Entry, Noticed, Sent, Subscribed, Turn
from voice.measures import percentile


class Loss(msgspec.Struct, frozen=True):
    """`count` messages or rows that are missing on `route`.

    `knock_on` where nobody even tried, because something before it went wrong.
    """

    route: str
    where: str
    count: int
    what: str
    knock_on: bool = False


class Line(msgspec.Struct, frozen=True):
    """One destination: message counts, those delivered for each reader."""

    destination: str
    route: str
    expected: int | None
    tried: int
    published: int
    delivered: dict[str, int]


class Hop(msgspec.Struct, frozen=True):
    """How long a part of the way took; milliseconds."""

    name: str
    count: int
    p50: float
    p95: float


class Ledgers:
    """The ledgers of all processes in a folder, read on as they grow."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self._folder = folder
        self._read: defaultdict[Path, int] = defaultdict(int)
        self._decode = msgspec.json.Decoder(Entry).decode

    def news(self) -> Iterator[tuple[str, Entry]]:
        """Yield the entries since the last call, each with the name of its process."""
        for path in sorted(self._folder.glob("arc-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read[path])
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written just now
                    self._read[path] += len(line)
                    yield path.stem, self._decode(line)


class Accounts:
    """The sums of all entries so far, against what the calls should have come to."""

    def __init__(self, expected: Mapping[str, int], routes: Mapping[str, str]) -> None:
        """Expect so many messages by destination, on routes from prefix to URL."""
        self.turns: list[Turn] = []
        self.notices: list[tuple[str, Noticed]] = []
        self.calls: list[CallOver] = []
        self.services: set[str] = set()
        self._expected = expected
        self._routes = Routes(routes.items())
        self._sent: defaultdict[str, list[Sent]] = defaultdict(list)
        self._readers: dict[tuple[str, str], str] = {}
        self._first: dict[tuple[str, str, str], float] = {}
        self._failed: dict[tuple[str, str, str], str] = {}
        self._done: dict[tuple[str, str, str], float] = {}

    def add(self, entries: Iterable[tuple[str, Entry]]) -> int:
        """Enter what the ledgers say; return how many entries that were."""
        count = 0
        for process, entry in entries:
            count += 1
            self.services.add(process.partition(".")[0])
            match entry:
                case Sent():
                    self._sent[entry.destination].append(entry)
                case Attempt():
                    self._attempted(process, entry)
                case Subscribed():
                    self._subscribed(process, entry)
                case Noticed():
                    self.notices.append((process, entry))
                case Turn():
                    self.turns.append(entry)
                case CallOver():
                    self.calls.append(entry)
        return count

    def _subscribed(self, process: str, entry: Subscribed) -> None:
        """Name a reader: a group by itself, a process without one by its service and a number."""
        name, members = entry.group, 0
        if not name:
            name = process.partition(".")[0]
            members = sum(
                pattern == entry.pattern and reader.partition(".")[0] == name
                for pattern, reader in self._readers
            )
        key = (entry.pattern, entry.group or process)
        self._readers.setdefault(key, f"{name} {members + 1}" if members else name)

    def _attempted(self, process: str, attempt: Attempt) -> None:
        key = (attempt.pattern, attempt.group or process, attempt.id)
        self._first.setdefault(key, attempt.at)
        if attempt.error:
            self._failed[key] = attempt.error
        else:
            self._done[key] = attempt.at + attempt.seconds

    def dead_letters(self) -> Counter[str]:
        """Return how many messages went to the dead letters, by their subscription's pattern."""
        found = Counter[str]()
        for _, notice in self.notices:
            if notice.kind == "dead_lettered":
                found[notice.pattern] += notice.count
        return found

    def lines(self) -> list[Line]:
        """Return one line a destination, in alphabetical order."""
        return [
            Line(
                destination,
                self._routes.resolve(destination),
                self._expected.get(destination),
                len(self._sent[destination]),
                len(self._published(destination)),
                {
                    name: sum((*key, id) in self._first for id in self._published(destination))
                    for key, name in self._readers_of(destination)
                },
            )
            for destination in sorted({*self._expected, *self._sent})
        ]

    def _published(self, destination: str) -> list[str]:
        """Return the ids that reached the transport; a request whose handler failed is one."""
        return [
            sent.id
            for sent in self._sent[destination]
            if not sent.error or self._was_attempted(destination, sent.id)
        ]

    def _was_attempted(self, destination: str, id: str) -> bool:
        return any((*key, id) in self._first for key, _ in self._readers_of(destination))

    def _is_done(self, destination: str, id: str) -> bool:
        return any((*key, id) in self._done for key, _ in self._readers_of(destination))

    def _readers_of(self, destination: str) -> list[tuple[tuple[str, str], str]]:
        return [(key, name) for key, name in self._readers.items() if matches(key[0], destination)]

    def losses(self) -> list[Loss]:
        """Return what is missing, destination by destination; nothing means all is there."""
        return [
            loss
            for destination in sorted({*self._expected, *self._sent})
            for loss in self._losses_of(destination)
        ]

    def _losses_of(self, destination: str) -> Iterator[Loss]:
        route = self._routes.resolve(destination)
        sent, published = self._sent[destination], self._published(destination)
        refused = [entry.error for entry in sent if entry.error and entry.id not in published]
        if refused:
            what = f"could not be published: {refused[0]}"
            yield Loss(route, destination, len(refused), what)
        silent = [
            entry.error for entry in sent if entry.error and self._is_done(destination, entry.id)
        ]
        if silent:
            yield Loss(route, destination, len(silent), f"answered, and no reply came: {silent[0]}")
        for key, name in self._readers_of(destination):
            undelivered = [id for id in published if (*key, id) not in self._first]
            failed = [
                id for id in published if (*key, id) in self._first and (*key, id) not in self._done
            ]
            if undelivered:
                what = f"published and never delivered to {name}"
                yield Loss(route, destination, len(undelivered), what)
            if failed:
                why = self._failed.get((*key, failed[0]), "not finished")
                yield Loss(f"handlers of {name}", destination, len(failed), f"failed: {why}")
        if published and not self._readers_of(destination):
            yield Loss(route, destination, len(published), "published, and nobody reads them")
        missing = self._expected.get(destination, 0) - len(sent)
        if missing > 0:
            yield Loss(route, destination, missing, "never came about", knock_on=True)

    def hops(self) -> list[Hop]:
        """Return how long each part of the way took: from publish to the start of a handler."""
        hops = [
            _hop(f"{destination} → {name}", self._ages(destination, key))
            for destination in sorted(self._sent)
            for key, name in self._readers_of(destination)
        ]
        asked = [s.seconds for s in self._sent["agent.brain.request"] if s.request and not s.error]
        kept = "persistent://arc/events/conversations"
        stored = [
            age for key, _ in self._readers_of(kept) for age in self._ages(kept, key, done=True)
        ]
        spoken = [turn.seconds for turn in self.turns if turn.spoken]
        return [
            *hops,
            _hop("agent.brain.request → reply", asked),
            _hop(f"{kept} confirmed", [s.seconds for s in self._sent[kept] if not s.error]),
            _hop(f"{kept} → row", stored),
            _hop("whole turn, asked to spoken", spoken),
        ]

    def _ages(self, destination: str, key: tuple[str, str], *, done: bool = False) -> list[float]:
        moments = self._done if done else self._first
        return [
            moments[*key, sent.id] - sent.at
            for sent in self._sent[destination]
            if (*key, sent.id) in moments
        ]


def _hop(name: str, seconds: list[float]) -> Hop:
    milliseconds = [1000 * one for one in seconds]
    return Hop(name, len(seconds), percentile(milliseconds, 50), percentile(milliseconds, 95))


def by_route(losses: Iterable[Loss]) -> dict[str, list[Loss]]:
    """Return the losses route by route: first the routes that lost, then those that got nothing."""
    grouped: defaultdict[str, list[Loss]] = defaultdict(list)
    for loss in sorted(losses, key=lambda loss: (loss.knock_on, loss.where)):
        grouped[loss.route].append(loss)
    weight: Counter[str] = Counter()
    for route, found in grouped.items():
        weight[route] = sum(loss.count for loss in found if not loss.knock_on)
    return {route: grouped[route] for route in sorted(grouped, key=lambda r: (-weight[r], r))}
