"""Faults: a plugin that makes a transport fail, lose, double, delay or reorder on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol, cast

import msgspec

from arc_bus.errors import ArcBusError, ConfigError, ConnectionLost, NotSettled
from arc_bus.hookspecs import hookimpl
from arc_bus.plugins import load
from arc_bus.policy import Subscription
from arc_bus.routing import matches
from arc_bus.testing.wrapper import Wrapped, WrappedFeed
from arc_bus.transport import (
    Deliver,
    Delivery,
    Endpoint,
    Feed,
    Outgoing,
    Transport,
    TransportFactory,
)


class Call(StrEnum):
    """What can be made to fail."""

    PUBLISH = "publish"
    REQUEST = "request"
    ACK = "ack"
    NACK = "nack"
    REJECT = "reject"


class _Effect(StrEnum):
    DROP = "drop"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    REORDER = "reorder"


class _Planned(msgspec.Struct):
    """Something that is to happen `times` more times to what matches `pattern`."""

    pattern: str
    times: int
    seconds: float = 0.0
    error: ArcBusError | None = None

    def takes(self, destination: str) -> bool:
        return self.times > 0 and matches(self.pattern, destination)


class _Plugin(Protocol):
    def arc_transports(self) -> Mapping[str, TransportFactory]: ...


class Faults:
    """Stands between a bus and the transports of one URL scheme; does nothing until told to.

    Each method plans something for the next `times` messages whose destination its pattern matches;
    plans of one kind are used up in the order in which they were made. `left()` says which of them
    were not, so that a test can show that its fault did happen.
    """

    def __init__(self, scheme: str = "memory") -> None:
        self._scheme = scheme
        self._failures: dict[Call, list[_Planned]] = {call: [] for call in Call}
        self._effects: dict[_Effect, list[_Planned]] = {effect: [] for effect in _Effect}
        self._held: list[tuple[Deliver, Delivery]] = []

    @hookimpl
    def arc_transports(self) -> Mapping[str, TransportFactory]:
        """Serve the scheme with its own transport, wrapped."""
        return {self._scheme: self._make}

    def _make(self, endpoint: Endpoint) -> Transport:
        plugin = cast("_Plugin", load(self._scheme))
        return _Faulty(plugin.arc_transports()[self._scheme](endpoint), self)

    def fail_next(
        self,
        pattern: str,
        call: Call = Call.PUBLISH,
        *,
        times: int = 1,
        error: ArcBusError | None = None,
    ) -> None:
        """Let the next calls raise `error` instead of doing anything.

        By default ConnectionLost, and NotSettled for a verdict.
        """
        if error is None:
            sending = call in (Call.PUBLISH, Call.REQUEST)
            kind = ConnectionLost if sending else NotSettled
            error = kind(f"a planned failure of {call.value} on {pattern!r}")
        self._failures[call].append(_Planned(pattern, times, error=error))

    def drop(self, pattern: str, times: int = 1) -> None:
        """Lose the next messages: publishing says that all is well, and nobody gets them."""
        self._effects[_Effect.DROP].append(_Planned(pattern, times))

    def duplicate(self, pattern: str, times: int = 1) -> None:
        """Deliver the next messages twice; the verdict on the second copy is dropped."""
        self._effects[_Effect.DUPLICATE].append(_Planned(pattern, times))

    def delay(self, pattern: str, seconds: float, times: int = 1) -> None:
        """Hold the next messages back for `seconds` of the event loop's time before delivery."""
        self._effects[_Effect.DELAY].append(_Planned(pattern, times, seconds))

    def reorder(self, pattern: str, count: int = 2) -> None:
        """Hold the next `count` messages until all are there, and deliver them last one first."""
        if count < 2:
            raise ConfigError(f"reorder({pattern!r}, count={count}): it takes two at least")
        self._effects[_Effect.REORDER].append(_Planned(pattern, count))

    def left(self) -> list[str]:
        """Return what was planned and has not happened, a line each."""
        plans: list[tuple[str, list[_Planned]]] = [
            *((f"fail {call.value}", planned) for call, planned in self._failures.items()),
            *((effect.value, planned) for effect, planned in self._effects.items()),
        ]
        return [
            f"{what} {plan.pattern} x {plan.times}"
            for what, planned in plans
            for plan in planned
            if plan.times
        ]

    def raise_if_planned(self, call: Call, destination: str) -> None:
        """Raise the next planned failure of a call, if there is one."""
        plan = _next(self._failures[call], destination)
        if plan is not None and plan.error is not None:
            raise plan.error

    def loses(self, destination: str) -> bool:
        """Return whether a message to `destination` is to be dropped now."""
        return _next(self._effects[_Effect.DROP], destination) is not None

    def deliver(self, deliver: Deliver, batch: list[Delivery]) -> None:
        """Hand over a batch, with whatever is planned for its messages."""
        now: list[Delivery] = []
        for delivery in batch:
            subject = delivery.subject
            if (plan := _next(self._effects[_Effect.DELAY], subject)) is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(plan.seconds, deliver, [delivery])
            elif (plan := _next(self._effects[_Effect.REORDER], subject)) is not None:
                self._held.append((deliver, delivery))
                if plan.times == 0:
                    now += self._release(deliver)
            else:
                now.append(delivery)
                if _next(self._effects[_Effect.DUPLICATE], subject) is not None:
                    now.append(msgspec.structs.replace(delivery, token=_SECOND_COPY))
        if now:
            deliver(now)

    def _release(self, deliver: Deliver) -> list[Delivery]:
        """Return what is held for `deliver`, last one first; hand the rest to whom it belongs."""
        held, self._held = self._held[::-1], []
        for owner, delivery in held:
            if owner is not deliver:
                owner([delivery])
        return [delivery for owner, delivery in held if owner is deliver]


_SECOND_COPY = object()


def _next(plans: list[_Planned], destination: str) -> _Planned | None:
    """Use up one time of the first plan that takes `destination`; None if there is none."""
    for plan in plans:
        if plan.takes(destination):
            plan.times -= 1
            return plan
    return None


class _Faulty(Wrapped):
    def __init__(self, inner: Transport, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    async def publish(self, outgoing: Outgoing) -> None:
        self._faults.raise_if_planned(Call.PUBLISH, outgoing.destination)
        if not self._faults.loses(outgoing.destination):
            await self.inner.publish(outgoing)

    async def request(self, outgoing: Outgoing, timeout: float) -> Delivery:
        self._faults.raise_if_planned(Call.REQUEST, outgoing.destination)
        return await self.inner.request(outgoing, timeout)

    async def subscribe(self, subscription: Subscription, deliver: Deliver) -> Feed:
        def arrive(batch: list[Delivery]) -> None:
            self._faults.deliver(deliver, batch)

        return _FaultyFeed(await self.inner.subscribe(subscription, arrive), self._faults)


class _FaultyFeed(WrappedFeed):
    def __init__(self, inner: Feed, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    async def ack(self, delivery: Delivery) -> None:
        self._faults.raise_if_planned(Call.ACK, delivery.subject)
        if delivery.token is not _SECOND_COPY:
            await self.inner.ack(delivery)

    async def nack(self, delivery: Delivery, delay: float = 0.0) -> None:
        self._faults.raise_if_planned(Call.NACK, delivery.subject)
        if delivery.token is not _SECOND_COPY:
            await self.inner.nack(delivery, delay)

    async def reject(self, delivery: Delivery) -> None:
        self._faults.raise_if_planned(Call.REJECT, delivery.subject)
        if delivery.token is not _SECOND_COPY:
            await self.inner.reject(delivery)
