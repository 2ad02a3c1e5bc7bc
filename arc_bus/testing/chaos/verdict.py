"""The verdict over a run of chaos: what no fault explains.

Loss, phantoms and duplicates are judged as in the conformance kit. Order, loss where a transport
may lose, and what comes again need to know when something was broken: a `Window` reaches from the
beginning of a fault until messages flowed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import msgspec

from arc_bus.testing.history import Fate, History, Publish, Receipt
from arc_bus.testing.judge import FORGETFUL, by_message, stored_twice, wrongs
from arc_bus.transport import Capabilities, Guarantee, Ordering


class Window(msgspec.Struct):
    """A fault, between two places of the history."""

    fault: str
    began: int
    ended: int


class Seen(Protocol):
    """What a load has seen: where each message's handler first began, and what was finished."""

    history: History
    begun: dict[str, int]
    finished: set[str]


def unexplained(seen: Seen, capabilities: Capabilities, windows: Sequence[Window]) -> list[str]:
    """Return what is wrong, a sentence each; empty if the faults explain everything."""
    # Order is judged below, by what was broken meanwhile; credit is the bus's own affair.
    plain = msgspec.structs.replace(capabilities, ordering=Ordering.NONE, prefetch_bounded=False)
    found = wrongs(seen.history, plain)
    if capabilities.delivery is Guarantee.AT_LEAST_ONCE:
        found += _lost(seen)
        found += _again_after_calm(seen, capabilities, windows)
    else:
        found += _lost_in_calm(seen, windows)
    if capabilities.ordering is not Ordering.NONE:
        found += _inversions(seen, windows)
    return found


def _lost(seen: Seen) -> Iterator[str]:
    confirmed = {p.id for p in seen.history.publishes if p.fate is Fate.CONFIRMED}
    for id in sorted(confirmed - seen.finished):
        yield f"lost: {id!r} was confirmed, and no handler ever finished with it"


def _again_after_calm(
    seen: Seen, capabilities: Capabilities, windows: Sequence[Window]
) -> Iterator[str]:
    """Yield what came again although nothing was broken when, and just after, it was settled.

    The kit's judge takes any fault between two deliveries for what explains the second. Here faults
    come all the time, and only one may that can have kept this message's verdict from its broker.
    """
    history, twice = seen.history, stored_twice(seen.history, capabilities)
    for audience in history.audiences():
        for id, receipts in by_message(history, audience).items():
            for earlier, later in pairwise(receipts if id not in twice else ()):
                if _settled_in_calm(history, windows, earlier, later):
                    yield f"again: {id!r} came to {audience} long after it had been settled in calm"


def _settled_in_calm(
    history: History, windows: Sequence[Window], earlier: Receipt, later: Receipt
) -> bool:
    """Whether nothing was broken as `earlier` was settled, or a moment after and before `later`."""
    if earlier.settlement is None or earlier.settlement.began > later.place:
        return False
    settled = earlier.settlement.began
    latest = history.when(settled) + FORGETFUL
    broken = [window.began for window in windows if window.ended >= settled]
    broken += [fault for fault in history.faults if fault > settled]
    return not any(began < later.place and history.when(began) <= latest for began in broken)


def _lanes(history: History) -> dict[str, list[Publish]]:
    """Return the first publish of each message, in the order of each publisher."""
    lanes: dict[str, list[Publish]] = {}
    seen: set[str] = set()
    for publish in history.publishes:
        if publish.id not in seen:
            seen.add(publish.id)
            lanes.setdefault(publish.publisher, []).append(publish)
    return lanes


def _disturbed(windows: Sequence[Window], began: int, ended: int) -> bool:
    return any(window.began <= ended and window.ended >= began for window in windows)


def _lost_in_calm(seen: Seen, windows: Sequence[Window]) -> Iterator[str]:
    """Yield confirmed messages that are missing, whose successor came and nothing was broken."""
    for lane, publishes in _lanes(seen.history).items():
        until: int | None = None
        for publish in reversed(publishes):
            if publish.id in seen.finished:
                until = seen.begun[publish.id]
            elif until is None or publish.fate is not Fate.CONFIRMED:
                continue  # nothing came after it, or nobody said that it arrived
            elif not _disturbed(windows, publish.began, until):
                yield f"lost: {publish.id!r} of {lane}, while nothing was broken"


def _inversions(seen: Seen, windows: Sequence[Window]) -> Iterator[str]:
    places = seen.begun
    for lane, publishes in _lanes(seen.history).items():
        latest: Publish | None = None
        for publish in publishes:
            if publish.id not in places:
                continue
            if latest is not None and places[publish.id] < places[latest.id]:
                if not _disturbed(windows, latest.began, places[latest.id]):
                    yield f"order: {publish.id!r} came before {latest.id!r} of {lane}"
                continue
            latest = publish
