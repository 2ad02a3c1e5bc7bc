"""Handle: one subscription as its bus keeps it, and what is checked before it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from arc_bus.check import Check
from arc_bus.consumer import Consumer, StopReport
from arc_bus.errors import ConfigError, HandlerError, RouteError, Unsupported
from arc_bus.handler import Signature
from arc_bus.health import Attendance
from arc_bus.notice import Notice, NoticeKind
from arc_bus.outlet import Attached
from arc_bus.policy import DEFAULT_DEAD_LETTER, Subscription, check_seconds
from arc_bus.reader import field_names
from arc_bus.routing import (
    Routes,
    check_destination,
    check_group,
    check_pattern,
    dead_letter_destination,
    is_dead_letter,
    matches,
)
from arc_bus.transport import Guarantee, Wildcard

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.running import Running

log = logging.getLogger("arc_bus")


def check_names(subscription: Subscription) -> None:
    """Raise InvalidName for a pattern, group or dead-letter destination that is not allowed.

    ConfigError for a destination of dead letters whose messages the subscription gets itself.
    """
    check_pattern(subscription.pattern)
    if subscription.group is not None:
        check_group(subscription.group)
    dead, pattern = subscription.dead_letter, subscription.pattern
    if dead is not None and dead != DEFAULT_DEAD_LETTER:
        check_destination(dead)
        if matches(pattern, dead) and not is_dead_letter(dead):
            raise ConfigError(
                f"subscription {pattern!r} would get its own dead letters from {dead!r}, for ever:"
                " name another destination, or leave dead_letter out"
            )


def check_order_by(subscription: Subscription, signature: Signature) -> None:
    """Raise HandlerError for an `order_by` field that the handler's payload type cannot have."""
    field, known = subscription.order_by, field_names(signature.payload_type)
    if isinstance(field, str) and known is not None and field not in known:
        raise HandlerError(
            f"handler {signature.name}: order_by={field!r}, but its payload has only"
            f" {', '.join(known) or 'bytes'}; name one of them, or give a function of the payload"
        )


def dead_letter_pattern(subscription: Subscription) -> str | None:
    """Return where this subscription's dead letters go, as a pattern; None if it wants none."""
    if subscription.dead_letter == DEFAULT_DEAD_LETTER:
        return dead_letter_destination(subscription.pattern)
    return subscription.dead_letter


def check_against(subscription: Subscription, attached: Attached, routes: Routes[Attached]) -> None:
    """Raise Unsupported or RouteError where the route cannot keep what the subscription asks."""
    can = attached.transport.capabilities
    where = f"subscription {subscription.pattern!r} on {attached.url}"
    if subscription.require is Guarantee.AT_LEAST_ONCE is not can.delivery:
        better = [
            prefix
            for prefix, target in routes.items()
            if target.transport.capabilities.delivery is Guarantee.AT_LEAST_ONCE
        ]
        raise Unsupported(
            f"{where} requires at-least-once delivery, which this route does not give;"
            f" prefixes whose routes do: {', '.join(map(repr, better)) or 'none'}"
        )
    if subscription.group is not None and not can.groups:
        raise Unsupported(f"{where}: the transport has no groups; leave group out")
    if subscription.start not in can.start:
        known = ", ".join(sorted(position.value for position in can.start))
        raise Unsupported(f"{where}: start={subscription.start.value!r}; this route can: {known}")
    for mark, needed in (("*", Wildcard.TOKEN), (">", Wildcard.TAIL)):
        if mark in subscription.pattern and needed not in can.wildcards:
            raise Unsupported(f"{where}: the transport cannot match {mark!r}")
    _check_dead_letters(subscription, where, routes)


def _check_dead_letters(subscription: Subscription, where: str, routes: Routes[Attached]) -> None:
    dead = dead_letter_pattern(subscription)
    if dead is None:
        return
    try:
        routes.resolve_pattern(dead)
    except RouteError as error:
        raise RouteError(
            f"{where}: its dead letters go to {dead!r}, which has no route: {error}. Route that"
            " prefix, or subscribe with dead_letter=None to drop what fails (counted, reported)"
        ) from error


def check_no_loop(handle: Handle, others: Sequence[Handle]) -> None:
    """Raise ConfigError where dead letters of `handle` come back to it by way of `others`.

    What fails at `dead.<subject>` or `<topic>-dlq` gets no dead letter, so only named places count.
    """
    pattern = handle.subscription.pattern
    way: list[str] = []
    ahead = [handle]
    while ahead:
        place = ahead.pop().subscription.dead_letter
        if place is None or place == DEFAULT_DEAD_LETTER or place in way or is_dead_letter(place):
            continue
        way.append(place)
        if matches(pattern, place):
            raise ConfigError(
                f"subscription {pattern!r} would get its own dead letters again, for ever, by way"
                f" of {', '.join(map(repr, way))}: name another destination, or leave dead_letter"
                " out"
            )
        ahead += [other for other in others if matches(other.subscription.pattern, place)]


class Handle:
    """What `bus.subscribe(pattern, handler)` returns: a subscription to be awaited or steered."""

    def __init__(
        self, subscription: Subscription, signature: Signature, forget: Callable[[Handle], None]
    ) -> None:
        """Keep both until the bus starts; `forget` takes it off the bus when it has stopped."""
        check_order_by(subscription, signature)
        self.subscription = subscription
        self.signature = signature
        self._forget: Callable[[Handle], None] | None = forget
        self._consumer: Consumer | None = None
        self._activating: asyncio.Task[None] | None = None
        self._attendance = Attendance()

    def __await__(self) -> Generator[object, None, Handle]:
        """Wait until it is active on a running bus; before the start it returns at once.

        Who is cancelled in it waits no longer; the subscription becomes active all the same.
        """
        if self._activating is not None:
            yield from asyncio.shield(self._activating).__await__()
        return self

    def activate_soon(self, running: Running) -> None:
        """Begin on a running bus; a failure is reported there, and raised to whoever awaits."""
        self._activating = asyncio.get_running_loop().create_task(self.activate(running))
        self._activating.add_done_callback(lambda task: self._report_failure(running.bus, task))

    def _report_failure(self, bus: Bus, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            bus.report(
                Notice(
                    kind=NoticeKind.ERROR,
                    pattern=self.subscription.pattern,
                    detail="not subscribed",
                    error=error,
                )
            )

    async def activate(self, running: Running) -> None:
        """Make sure that dead letters are kept, or say that they are not; begin to receive.

        Not if it was stopped before, or meanwhile.
        """
        if self._was_stopped():
            return
        dead = dead_letter_pattern(self.subscription)
        if dead is not None:
            attached = running.bus.routes.resolve_pattern(dead)
            await attached.transport.retain(dead)
            if not attached.transport.capabilities.browse:
                log.warning(
                    "dead letters of %r go to %r on %s, which keeps nothing for later: route that"
                    " prefix to a transport that does (nats+jetstream://, pulsar://), or subscribe"
                    " with dead_letter=None",
                    self.subscription.pattern,
                    dead,
                    attached.url,
                )
        consumer = running.consumer(self.subscription, self.signature)
        await consumer.start()
        self._consumer = consumer
        if self._was_stopped():  # meanwhile
            await consumer.stop(0.0)

    async def stop(self, grace: float = 30.0) -> StopReport:
        """Stop this subscription alone, as the bus would; idempotent.

        Raises ConfigError in one of its own handlers, for which it would wait.
        """
        check_seconds("grace", grace)
        self.check_not_within()
        if self._activating is not None:
            await asyncio.wait({self._activating})
        forget, self._forget = self._forget, None
        try:
            return await self._consumer.stop(grace) if self._consumer is not None else StopReport()
        finally:
            if forget is not None:
                forget(self)

    def check_not_within(self) -> None:
        """Raise ConfigError in a handler of this subscription, which must not await its end."""
        if self._consumer is not None and self._consumer.runs_here:
            raise ConfigError(
                f"a handler of {self.subscription.pattern!r} cannot wait for its own end: let a"
                " task of its own stop it, asyncio.create_task(...), and return"
            )

    def hurry(self) -> None:
        """End the grace period of a stop under way: what runs is cancelled, left unsettled."""
        if self._consumer is not None:
            self._consumer.hurry()

    def pause(self, seconds: float | None = None) -> None:
        """Start no handler and fetch nothing more until `resume()`, or for `seconds`."""
        check_seconds("pause", seconds or 0)
        self._active().pause(seconds)

    def resume(self) -> None:
        """Go on after `pause()`."""
        self._active().resume()

    @property
    def in_flight(self) -> int:
        """Messages of this subscription in this process, waiting and running."""
        return self._consumer.in_flight if self._consumer is not None else 0

    async def pending(self) -> int | None:
        """Return how many messages wait for it at the broker, None if the transport cannot tell."""
        return await self._active().pending()

    async def health(self, lost: int = 0) -> Check:
        """Return whether it receives, and its numbers; see `arc_bus.health.Attendance`."""
        return await self._attendance.check(self.subscription, self._consumer, lost)

    def _was_stopped(self) -> bool:
        return self._forget is None

    def _active(self) -> Consumer:
        if self._consumer is None:
            raise ConfigError(f"subscription {self.subscription.pattern!r} is not active yet")
        return self._consumer
