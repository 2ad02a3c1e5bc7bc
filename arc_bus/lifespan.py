"""Lifespan: a resource of one bus, made when it starts and given to handlers by its type."""

from __future__ import annotations

import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from arc_bus.errors import HandlerError

if TYPE_CHECKING:
    from arc_bus.bus import Bus
    from arc_bus.message import Message

LifespanFunction: TypeAlias = Callable[..., AsyncIterator[Any]]
"""An `async def` function of the bus that yields once, annotated `-> AsyncIterator[Type]`."""


class Lifespan:
    """What one bus has opened by a lifespan function, and gives to its handlers."""

    __slots__ = ("_function", "_name", "kind", "value")

    def __init__(self, function: LifespanFunction) -> None:
        """Read the annotation. Raises HandlerError naming the function and the remedy."""
        self._function = function
        self._name = getattr(function, "__qualname__", repr(function))
        try:
            returned = typing.get_type_hints(function).get("return")
        except NameError as error:
            raise HandlerError(
                f"lifespan {self._name}: {error}; its types must be importable"
            ) from error
        kinds = typing.get_args(returned)
        if not kinds or not _is_iterator(returned):
            raise HandlerError(
                f"lifespan {self._name}: annotate what it returns as AsyncIterator[...] of what"
                " it yields, or AsyncIterator[None]"
            )
        self.kind: type = kinds[0]
        self.value: object = None

    def provide(self, _message: Message) -> object:
        """Return what the function has yielded; the provider of `kind`."""
        return self.value

    @asynccontextmanager
    async def open(self, bus: Bus) -> AsyncGenerator[None]:
        """Run the function to its yield, and its rest at the end, whatever has failed meanwhile.

        Raises HandlerError for one that does not yield just once.
        """
        steps = self._function(bus)
        async for value in steps:
            self.value = value
            break
        else:
            raise HandlerError(f"lifespan {self._name} did not yield")
        try:
            yield
        finally:
            self.value = None
            async for _ in steps:
                raise HandlerError(f"lifespan {self._name} yielded twice")


def _is_iterator(kind: object) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, AsyncIterator)
