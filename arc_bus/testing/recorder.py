"""Recorder: a plugin that remembers what a bus published and handled, and waits for more of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, cast

import msgspec

from arc_bus.hookspecs import hookimpl
from arc_bus.middleware import (
    ConsumeMiddleware,
    Handler,
    Operation,
    PublishMiddleware,
    Sender,
    Slot,
)
from arc_bus.routing import matches

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.envelope import Envelope
    from arc_bus.message import Message
    from arc_bus.policy import Subscription
    from arc_bus.transport import Delivery


class Event(StrEnum):
    """What became of a message."""

    PUBLISHED = "published"
    REQUESTED = "requested"
    REFUSED = "refused"
    HANDLED = "handled"
    DEAD = "dead"
    RETURNED = "returned"


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it was seen. `payload` is made of plain values: what JSON would carry.

    `attempt` counts the handler's starts and is 0 for what was published; `error` is what the
    publish or the last attempt raised.
    """

    event: Event
    destination: str
    payload: object
    message_id: str
    headers: Mapping[str, str]
    key: str | None = None
    attempt: int = 0
    error: BaseException | None = None


class Recorder:
    """Give it to `Bus(plugins=[recorder])`; everything is kept, in order, in `seen`."""

    def __init__(self) -> None:
        self.seen: list[Recorded] = []
        self._changed = asyncio.Event()

    @hookimpl
    def arc_publish_middleware(self, bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
        """Note what is published and requested, once that has ended."""
        event = Event.REQUESTED if operation is Operation.REQUEST else Event.PUBLISHED

        def record(send: Sender) -> Sender:
            async def sent(envelope: Envelope[object]) -> Delivery | None:
                try:
                    reply = await send(envelope)
                except Exception as error:
                    self._note(Event.REFUSED, envelope, error=error)
                    raise
                self._note(event, envelope)
                return reply

            return sent

        return [record]

    @hookimpl
    def arc_consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
        """Note what was handled, dead-lettered, or left for later."""

        def record(handler: Handler) -> Handler:
            async def handled(message: Message) -> object:
                result = await handler(message)
                self._note_handled(message)
                return result

            return handled

        return [(Slot.DELIVERY, record)]

    async def expect(
        self,
        destination: str,
        payload: object = None,
        *,
        event: Event = Event.HANDLED,
        times: int = 1,
        within: float = 5.0,
    ) -> list[Recorded]:
        """Wait until `times` messages were seen, at least, and return them.

        `destination` may be a pattern. A mapping as `payload` must agree in the fields it has, any
        other payload in all; None agrees with everything. Raises AssertionError after `within`
        seconds of the event loop's time, saying in what each message that was seen differs.
        """
        try:
            async with asyncio.timeout(within):
                while len(found := self.find(destination, payload, event=event)) < times:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            wanted = _plain(payload)
            raise AssertionError(
                "\n".join(self._missed(destination, wanted, event, times, within))
            ) from None
        return found

    def find(
        self, destination: str, payload: object = None, *, event: Event = Event.HANDLED
    ) -> list[Recorded]:
        """Return what was seen until now, as `expect` would match it."""
        wanted = _plain(payload)
        return [
            each
            for each in self.seen
            if each.event is event
            and matches(destination, each.destination)
            and not list(_differences(wanted, each.payload, partly=isinstance(payload, Mapping)))
        ]

    def forget(self) -> None:
        """Begin anew: what was seen until now is gone."""
        self.seen.clear()

    def _note(
        self, event: Event, envelope: Envelope[object], error: BaseException | None = None
    ) -> None:
        self._add(
            Recorded(
                event=event,
                destination=envelope.destination,
                payload=_plain(envelope.payload),
                message_id=envelope.message_id,
                headers=dict(envelope.headers),
                key=envelope.key,
                error=error,
            )
        )

    def _note_handled(self, message: Message) -> None:
        event = Event.HANDLED
        if message.failure is not None:
            event = Event.DEAD if message.dead else Event.RETURNED
        self._add(
            Recorded(
                event=event,
                destination=message.subject,
                payload=_readable(message),
                message_id=message.id,
                headers=dict(message.headers),
                key=message.delivery.key,
                attempt=message.attempt,
                error=message.failure,
            )
        )

    def _add(self, recorded: Recorded) -> None:
        self.seen.append(recorded)
        self._changed.set()

    def _missed(
        self, destination: str, wanted: object, event: Event, times: int, within: float
    ) -> Iterator[str]:
        what = "" if wanted is None else f" with {wanted!r}"
        yield f"expected {times} x {event.value} {destination}{what} within {within} s; seen:"
        if not self.seen:
            yield "  nothing at all"
        for each in self.seen:
            error = f" ({type(each.error).__name__}: {each.error})" if each.error else ""
            yield f"  {each.event.value} {each.destination}{error}"
            if each.event is event and matches(destination, each.destination):
                for path, expected, found in _differences(wanted, each.payload, partly=True):
                    yield f"    {path}: expected {expected}, got {found}"


def _plain(payload: object) -> object:
    """Return a payload as plain values; bytes stay as they are."""
    return msgspec.to_builtins(payload, builtin_types=(bytes,)) if payload is not None else None


def _readable(message: Message) -> object:
    """Return the payload, or the bytes where they cannot be decoded."""
    try:
        return _plain(message.envelope.payload)
    except Exception:
        # Whatever a decoder or a payload's own code raised, the dead letter says so already.
        return message.delivery.body


def _differences(
    wanted: object, found: object, *, partly: bool, path: str = "payload"
) -> Iterator[tuple[str, str, str]]:
    """Iterate over (where, expected, found); `partly` lets `found` have further fields."""
    if wanted is None and path == "payload":
        return
    if wanted == found:
        return
    if not (isinstance(wanted, dict) and isinstance(found, dict)):
        yield path, f"{wanted!r}", f"{found!r}"
        return
    want, got = cast("dict[str, object]", wanted), cast("dict[str, object]", found)
    for name, value in want.items():
        if name not in got:
            yield f"{path}.{name}", repr(value), "nothing"
        else:
            yield from _differences(value, got[name], partly=partly, path=f"{path}.{name}")
    if not partly:
        for name in sorted(got.keys() - want.keys()):
            yield f"{path}.{name}", "nothing", repr(got[name])
