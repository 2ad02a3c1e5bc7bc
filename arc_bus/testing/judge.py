"""The one judge of histories: what must never happen, and what must have happened.

After Jepsen's set checker (lost, phantom, duplicated, reordered), with the explanations that a
broker may have for a duplicate: it was given back, its lease ended, its reader went, or the kit
broke something in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from arc_bus.routing import matches
from arc_bus.testing.history import Fate, History, Publish, Reader, Receipt
from arc_bus.transport import (
    Ack,
    Attempts,
    Capabilities,
    Guarantee,
    Ordering,
    OrderSurvives,
    PublishProof,
    StartAt,
    Verdict,
)

FORGETFUL = 2.0
"""Seconds: of the verdicts that a broker had confirmed, one that is killed may forget those of its
last moments. JetStream notes its consumers' state on disk 0.1 s late; the rest is a busy machine's.
"""


def wrongs(history: History, capabilities: Capabilities) -> list[str]:
    """Return what must never happen and did, one sentence each; empty if all is well."""
    return [
        *_phantoms(history),
        *_after_silence(history),
        *_over_credit(history, capabilities),
        *_duplicates(history, capabilities),
        *_attempts(history, capabilities),
        *_inversions(history, capabilities),
    ]


def lost(history: History, capabilities: Capabilities) -> list[str]:
    """Return the confirmed messages that an audience was owed and did not get, a sentence each."""
    found: list[str] = []
    for audience in history.audiences():
        got = {receipt.id for receipt in history.received(audience)}
        missing = [p.id for p in owed(history, audience, capabilities) if p.id not in got]
        if missing:
            found.append(f"lost: {audience} never got {_some(missing)}")
    return found


def owed(history: History, audience: str, capabilities: Capabilities) -> Iterator[Publish]:
    """Iterate over the confirmed publishes that an audience must get.

    An audience that remembers its position is owed everything from when its first reader was
    active, or from the beginning if that one asked for it; others what is published while one of
    their readers is there.
    """
    readers = history.audiences()[audience]
    first = readers[0]
    durable = first.group is not None and capabilities.delivery is Guarantee.AT_LEAST_ONCE
    for publish in history.publishes:
        if publish.fate is not Fate.CONFIRMED or not matches(first.pattern, publish.destination):
            continue
        # Only the first reader of a durable audience decides from when it is owed messages.
        present = readers[:1] if durable else readers
        if first.start is StartAt.EARLIEST or any(_there(r, publish, durable) for r in present):
            yield publish


def _there(reader: Reader, publish: Publish, durable: bool) -> bool:
    if reader.active is None or publish.began < reader.active:
        return False
    return durable or reader.ended is None or (publish.ended or 0) < reader.ended


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:5])
    return f"{len(ids)} messages ({shown}{', ...' if len(ids) > 5 else ''})"


def _phantoms(history: History) -> Iterator[str]:
    known: dict[str, list[Publish]] = {}
    for publish in history.publishes:
        known.setdefault(publish.id, []).append(publish)
    for receipt in history.receipts:
        origins = [p for p in known.get(receipt.id or "", []) if p.began < receipt.place]
        if not origins:
            yield f"phantom: {_what(receipt)} was never published"
        elif all(publish.fate is Fate.REFUSED for publish in origins):
            yield f"phantom: {_what(receipt)} was refused at publish, and delivered"
        elif receipt.subject not in {publish.destination for publish in origins}:
            yield f"phantom: {_what(receipt)} was published to {origins[0].destination!r}"
        elif not matches(receipt.reader.pattern, receipt.subject):
            yield f"phantom: {_what(receipt)} is not of the pattern {receipt.reader.pattern!r}"
        elif receipt.key not in {publish.key for publish in origins}:
            yield f"phantom: {_what(receipt)} has the key {receipt.key!r}, not {origins[0].key!r}"


def _what(receipt: Receipt) -> str:
    return f"message {receipt.id!r} on {receipt.subject!r} for {receipt.reader.name}"


def _after_silence(history: History) -> Iterator[str]:
    for receipt in history.receipts:
        silent = receipt.reader.silent
        if silent is not None and receipt.place > silent:
            yield f"late: {_what(receipt)} came after stop() had returned"


def _over_credit(history: History, capabilities: Capabilities) -> Iterator[str]:
    if capabilities.prefetch_bounded:
        for reader in history.readers:
            if reader.delivered > reader.granted:
                yield (
                    f"credit: {reader.name} was granted {reader.granted} deliveries"
                    f" and got {reader.delivered}"
                )


def by_message(history: History, audience: str) -> dict[str | None, list[Receipt]]:
    """Return what an audience was delivered, by the message's id, in the order of its coming."""
    found: dict[str | None, list[Receipt]] = {}
    for receipt in history.received(audience):
        found.setdefault(receipt.id, []).append(receipt)
    return found


def _duplicates(history: History, capabilities: Capabilities) -> Iterator[str]:
    twice = stored_twice(history, capabilities)
    for audience in history.audiences():
        for id, receipts in by_message(history, audience).items():
            for earlier, later in pairwise(receipts):
                wrong = _unexplained(history, capabilities, earlier, later)
                if wrong and id not in twice:
                    yield f"duplicate: {_what(later)}, after {earlier.reader.name}: {wrong}"


def stored_twice(history: History, capabilities: Capabilities) -> set[str | None]:
    """Return the ids that may be there twice: none where the broker removes the second.

    They were published twice, or the way broke while they were underway: a client that did not
    hear the answer sends again by itself.
    """
    seen, twice = set[str | None](), set[str | None]()
    if capabilities.publish_dedup is not None:
        return twice
    for publish in history.publishes:
        ended = publish.ended or history.place()
        if publish.id in seen or any(publish.began < fault < ended for fault in history.faults):
            twice.add(publish.id)
        seen.add(publish.id)
    return twice


def _unexplained(
    history: History, capabilities: Capabilities, earlier: Receipt, later: Receipt
) -> str | None:
    """Return what makes the second delivery wrong, None if the history explains it."""
    if capabilities.delivery is Guarantee.AT_MOST_ONCE:
        return "delivered twice by an at-most-once transport"
    reader, settlement = earlier.reader, earlier.settlement
    gone = reader.ended is not None and reader.ended < later.place
    broken = any(earlier.place < fault < later.place for fault in history.faults)
    if settlement is not None and settlement.began < later.place:
        if settlement.verdict is Verdict.NACK:
            return None
        done = settlement.ended
        if done is not None and done < later.place and capabilities.ack is Ack.CONFIRMED:
            forgotten = any(
                done < fault < later.place and history.when(fault) <= history.when(done) + FORGETFUL
                for fault in history.faults
            )
            return None if forgotten else f"its {settlement.verdict.value} had been confirmed"
        # A verdict that may still have been on its way explains it only if something cut the way.
        return None if gone or broken else f"it had been settled as {settlement.verdict.value}"
    if gone or broken:
        return None
    leased_from = max(earlier.at, earlier.extended or 0.0)
    deadline = capabilities.ack_deadline
    # A tenth of tolerance: the broker's clock began before the delivery was noted here.
    if deadline is not None and later.at - leased_from >= 0.9 * deadline:
        return None
    return "nobody gave it back, and its lease had not ended"


def _attempts(history: History, capabilities: Capabilities) -> Iterator[str]:
    # A broker that is killed may forget how often it had delivered; JetStream's does.
    if capabilities.attempts is not Attempts.EXACT or history.faults:
        return
    for audience in history.audiences():
        for receipts in by_message(history, audience).values():
            for number, receipt in enumerate(receipts, 1):
                if receipt.attempt < number:
                    yield f"attempts: {_what(receipt)} is attempt {receipt.attempt}, not {number}"


def _inversions(history: History, capabilities: Capabilities) -> Iterator[str]:
    """Compare first deliveries with the order of publishes that did not overlap."""
    if capabilities.ordering is Ordering.NONE:
        return
    survives = capabilities.ordering_survives
    publishes = {publish.id: publish for publish in history.publishes}
    # What is only buffered has an order on its own connection, and none between two of them.
    apart = capabilities.publish is PublishProof.BUFFERED
    lanes: dict[tuple[str, str, str | None, str], list[Publish]] = {}
    for audience, readers in history.audiences().items():
        end = min((r.ended for r in readers if r.ended is not None), default=None)
        if OrderSurvives.RECONNECT in survives:
            end = None
        for id, receipts in by_message(history, audience).items():
            first, publish = receipts[0], publishes.get(id or "")
            if publish is None or (end is not None and first.place > end):
                continue
            by = publish.publisher if apart else ""
            if capabilities.ordering is Ordering.PER_SUBJECT:
                lane = (first.reader.name, publish.destination, None, by)
                lanes.setdefault(lane, []).append(publish)
            if publish.key is not None:
                # Several readers of a group have no order but that of a key, if they asked for it.
                together = OrderSurvives.GROUP in survives and first.reader.by_key
                whose = audience if together else first.reader.name
                lanes.setdefault((whose, publish.destination, publish.key, by), []).append(publish)
    for (whose, subject, key, _), sequence in lanes.items():
        latest = sequence[0]
        for publish in sequence[1:]:
            if publish.ended is not None and publish.ended < latest.began:
                of = f" of key {key!r}" if key is not None else ""
                yield f"order: {whose} got {latest.id!r} before {publish.id!r} on {subject!r}{of}"
            if publish.began > latest.began:
                latest = publish
