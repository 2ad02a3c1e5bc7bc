"""Router: the subscriptions and resources of one module, to be included in a bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, Unpack, overload

from arc_bus.handler import Function
from arc_bus.lifespan import LifespanFunction
from arc_bus.policy import SubscriptionSettings

F = TypeVar("F", bound=Function)
L = TypeVar("L", bound=LifespanFunction)


class Subscribed(NamedTuple):
    """One subscription as it was asked for, before any bus knows of it."""

    pattern: str
    handler: Function
    settings: SubscriptionSettings


class Router:
    """Collects subscriptions and lifespans; `bus.include(router)` adds them to a bus.

    `prefix` stands before each pattern, as it is: `Router("agent.voice.")`. The further keywords
    are defaults for its subscriptions. One router may be included in several buses.
    """

    def __init__(self, prefix: str = "", **defaults: Unpack[SubscriptionSettings]) -> None:
        """Begin with nothing. Patterns and settings are checked when a bus includes it."""
        self._prefix = prefix
        self._defaults = defaults
        self.subscriptions: list[Subscribed] = []
        self.lifespans: list[LifespanFunction] = []

    @overload
    def subscribe(
        self, pattern: str, handler: None = None, **settings: Unpack[SubscriptionSettings]
    ) -> Callable[[F], F]: ...

    @overload
    def subscribe(
        self, pattern: str, handler: Function, **settings: Unpack[SubscriptionSettings]
    ) -> None: ...

    def subscribe(
        self,
        pattern: str,
        handler: Function | None = None,
        **settings: Unpack[SubscriptionSettings],
    ) -> Callable[[F], F] | None:
        """Note a subscription, as `Bus.subscribe` takes one: a decorator, or a plain call."""
        merged: SubscriptionSettings = {**self._defaults, **settings}
        if handler is not None:
            self.subscriptions.append(Subscribed(self._prefix + pattern, handler, merged))
            return None

        def register(function: F) -> F:
            self.subscriptions.append(Subscribed(self._prefix + pattern, function, merged))
            return function

        return register

    def lifespan(self, function: L) -> L:
        """Note a lifespan, as `Bus.lifespan` takes one: a decorator."""
        self.lifespans.append(function)
        return function

    def include(self, router: Router, prefix: str = "") -> None:
        """Take over what another router has noted, each pattern behind this one's prefix."""
        for pattern, handler, settings in router.subscriptions:
            merged: SubscriptionSettings = {**self._defaults, **settings}
            place = f"{self._prefix}{prefix}{pattern}"
            self.subscriptions.append(Subscribed(place, handler, merged))
        self.lifespans += router.lifespans
