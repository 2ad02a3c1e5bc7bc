"""DeadLetter: a message that no handler could deal with, kept with its reason.

A dead letter is published to `dead.<subject>` or `<topic>-dlq` through the same routes as
everything else. It has the original bytes and headers as they came, and beside them headers
`arc-dead-*` that say what happened.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import msgspec

from arc_bus.envelope import new_message_id, utc_now
from arc_bus.errors import ArcBusError, text_of
from arc_bus.headers import is_clean
from arc_bus.message import Message
from arc_bus.routing import matches, original_destination
from arc_bus.transport import Delivery, Outgoing, Transport
from arc_bus.wire import CONTENT_TYPE

PREFIX = "arc-dead-"

_LONGEST_TEXT = 1000
"""Bytes of an error message that are kept as escaped, so that a dead letter is at most 2 KiB of
headers larger than its original, whatever was said in whatever script."""

_OPTIONAL = (PREFIX + "text", PREFIX + "trace")
"""What a dead letter can do without, where all of it does not fit."""

_LONGEST_NAME = 128
"""The same for the names of an error's class and of a service."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. `body` and `headers` are the original's, byte for byte; times are RFC 3339.

    `id` is the dead letter's own, `message_id` the original's (empty if it had none). `error` is
    the class name, `text` its message (cut to 1000 bytes as it is escaped in the header), `trace` a
    hash that is equal for equal tracebacks. `attempts` handler starts were made between `first` and
    `last`.
    """

    id: str
    destination: str
    message_id: str
    body: bytes
    headers: dict[str, str]
    key: str | None
    error: str
    text: str
    trace: str
    attempts: int
    service: str
    group: str
    first: str
    last: str
    delivery: Delivery


def bury(message: Message, destination: str, service: str, first: str) -> Outgoing:
    """Return the dead letter of a failed `message`, to be published to `destination`.

    Its id follows from the message's own, so that publishing it again after a crash is seen as a
    duplicate by a transport that deduplicates.
    """
    delivery, error = message.delivery, message.failure
    assert error is not None
    group = message.subscription.group or ""
    told = {
        "error": _cut(type(error).__name__, _LONGEST_NAME),
        "text": _cut(text_of(error), _LONGEST_TEXT),
        "trace": _trace_hash(error),
        "attempts": str(message.attempt),
        "service": _cut(service, _LONGEST_NAME),
        "group": group,
        "first": first,
        "last": utc_now(),
        "subject": delivery.subject,
        "id": delivery.id or "",
    }
    headers = {k: v for k, v in delivery.headers.items() if not k.startswith(PREFIX)}
    headers.update({PREFIX + name: _escaped(value) for name, value in told.items() if value})
    return Outgoing(
        destination=destination,
        body=delivery.body,
        headers=headers,
        id=derived_id(delivery.id, f"dead {group or service}"),
        key=delivery.key,
    )


def derived_id(message_id: str | None, purpose: str) -> str:
    """Return the one id for a message and purpose; it starts with the message's own.

    What a publisher called the message stays in front of the `~`, which no publisher's id holds.
    """
    if not message_id:
        return new_message_id()
    whole = f"{message_id} {purpose}".encode(errors="replace")
    digest = hashlib.blake2b(whole, digest_size=6).hexdigest()
    stem = message_id.partition("~")[0]
    # One that came from elsewhere and fits no header has the digest alone.
    return f"{stem if is_clean(stem) and len(stem) <= 255 else ''}~{digest}"


def smaller(outgoing: Outgoing) -> Outgoing | None:
    """Return a dead letter that leaves behind what its route may not be able to carry.

    First the error's text; then the original's headers but for the content type, and its key:
    better those than the message. None if nothing more can be left out.
    """
    without_text = _without(outgoing, lambda name: name in _OPTIONAL)
    if without_text != outgoing:
        return without_text
    bare = _without(outgoing, lambda name: not name.startswith(PREFIX) and name != CONTENT_TYPE)
    bare = msgspec.structs.replace(bare, key=None)
    return bare if bare != outgoing else None


def _without(outgoing: Outgoing, drops: Callable[[str], bool]) -> Outgoing:
    headers = {name: value for name, value in outgoing.headers.items() if not drops(name)}
    return msgspec.structs.replace(outgoing, headers=headers)


def _trace_hash(error: BaseException) -> str:
    """Hash where it was raised, not what was said: file names, functions and lines only."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "\n".join(f"{frame.filename}:{frame.name}:{frame.lineno}" for frame in frames)
    return hashlib.blake2b(places.encode(), digest_size=8).hexdigest() if places else ""


def _cut(text: str, most: int) -> str:
    """Return as much of `text` as takes up at most `most` bytes when it is escaped."""
    text = text[:most]
    while (size := len(_escaped(text))) > most:
        text = text[: len(text) * most // size]
    return text


def _escaped(text: str) -> str:
    """Return `text` in printable ASCII, as inside a JSON string: it can forge no header."""
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f")


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def read(delivery: Delivery) -> DeadLetter:
    """Return the dead letter in a browsed delivery; fields that are missing are empty."""
    headers = dict(delivery.headers)
    told = {
        name.removeprefix(PREFIX): _unescaped(headers.pop(name))
        for name in list(headers)
        if name.startswith(PREFIX)
    }
    attempts = told.get("attempts", "")
    return DeadLetter(
        id=delivery.id or "",
        destination=told.get("subject") or original_destination(delivery.subject),
        message_id=told.get("id", "").partition("~")[0],
        body=delivery.body,
        headers=headers,
        key=delivery.key,
        error=told.get("error", ""),
        text=told.get("text", ""),
        trace=told.get("trace", ""),
        attempts=int(attempts) if attempts.isdecimal() else 0,
        service=told.get("service", ""),
        group=told.get("group", ""),
        first=told.get("first", ""),
        last=told.get("last", ""),
        delivery=delivery,
    )


class DeadLetters:
    """The dead letters of one destination or pattern; made by `bus.dead_letters(...)`."""

    def __init__(
        self,
        pattern: str,
        transport: Transport,
        forward: Callable[[Outgoing], Awaitable[None]],
        originals: str | None = None,
    ) -> None:
        """Look at the dead letters that `transport` keeps on `pattern`, a dead-letter pattern.

        Where those of others are there too, `originals` says to which pattern ours were published.
        """
        self._pattern = pattern
        self._originals = originals
        self._transport = transport
        self._forward = forward

    async def list(self, limit: int = 1000) -> list[DeadLetter]:
        """Return up to `limit` entries, oldest first. Raises Unsupported where nothing is kept."""
        found: list[DeadLetter] = []
        async with aclosing(self._entries()) as entries:
            async for entry in entries:
                found.append(entry)
                if len(found) >= limit:
                    break
        return found

    def __aiter__(self) -> AsyncIterator[DeadLetter]:
        """Iterate over the entries, oldest first, to their present end."""
        return self._entries()

    async def _entries(self) -> AsyncGenerator[DeadLetter]:
        deliveries = self._transport.browse(self._pattern)
        try:
            async for delivery in deliveries:
                entry = read(delivery)
                if self._originals is None or matches(self._originals, entry.destination):
                    yield entry
        finally:
            # Whoever looks no further leaves no reader open at the broker until it is collected.
            if isinstance(deliveries, AsyncGenerator):
                await deliveries.aclose()

    async def get(self, id: str) -> DeadLetter:
        """Return the entry whose own id, or message's id, is `id`. Raises ArcBusError if none."""
        async with aclosing(self._entries()) as entries:
            async for entry in entries:
                if id in (entry.id, entry.message_id):
                    return entry
        raise ArcBusError(
            f"no dead letter {id!r} on {self._pattern!r}; list() and `arc-bus dlq ls` show them"
        )

    async def replay(self, entry: DeadLetter) -> None:
        """Publish the original again where it came from; remove the entry once that is confirmed.

        The message keeps its id. Replaying an entry twice is one message where the transport
        deduplicates. If publishing fails the entry stays, and the error is raised: NoResponders
        where the route keeps nothing and nobody listens.
        """
        await self._forward(
            Outgoing(
                destination=entry.destination,
                body=entry.body,
                headers=entry.headers,
                id=derived_id(entry.id or entry.message_id, "replay"),
                key=entry.key,
            )
        )
        await self._transport.discard(entry.delivery)

    async def discard(self, entry: DeadLetter) -> None:
        """Remove the entry for good."""
        await self._transport.discard(entry.delivery)
