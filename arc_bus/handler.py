"""What a handler's signature asks for, compiled once into one call of a message.

The first parameter is the payload: a `msgspec.Struct`, dataclass, TypedDict, `dict`, `bytes`, or
`Envelope[...]` around any of them. The others are found by type: `Message`, and whatever plugins
or `Bus.provide` offer; what has a default keeps it. Plain functions run in the bus's bounded
threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias, cast

from arc_bus.errors import ConfigError, HandlerError
from arc_bus.message import Message
from arc_bus.middleware import Handler
from arc_bus.policy import Subscription
from arc_bus.reader import check_payload_type, payload_type_of
from arc_bus.routing import has_wildcard

Function: TypeAlias = Callable[..., Any]
"""A user's handler, `async def` or plain."""

Providers: TypeAlias = Mapping[type, Callable[[Message], object]]


class Signature:
    """A handler's payload and return types, whether it wants the envelope, its dependencies."""

    __slots__ = ("dependencies", "function", "name", "payload_type", "returns", "wants_envelope")

    def __init__(self, function: Function) -> None:
        """Read `function`'s annotations. Raises HandlerError naming the parameter and remedy."""
        self.function = function
        self.name = getattr(function, "__qualname__", repr(function))
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise HandlerError(f"handler {self.name} is a generator; return the reply instead")
        parameters = self._parameters()
        first, *others = parameters
        if first.annotation in (object, Any, Message):
            raise HandlerError(
                f"handler {self.name}: the first parameter is the payload; annotate {first.name!r}"
                " with what it takes, such as dict, bytes, a msgspec.Struct, a dataclass, or"
                " Envelope[...]"
            )
        self.payload_type, self.wants_envelope = payload_type_of(first.annotation)
        try:
            check_payload_type(self.payload_type)
        except ConfigError as error:
            raise HandlerError(f"handler {self.name}: {first.name!r}: {error}") from error
        self.dependencies = {p.name: p.annotation for p in others}

    def _parameters(self) -> list[inspect.Parameter]:
        try:
            plain = inspect.signature(self.function)
            hints = typing.get_type_hints(_annotated(self.function))
            self.returns: object = hints.get("return", object)
        except (NameError, TypeError, ValueError) as error:
            raise HandlerError(
                f"handler {self.name}: its annotations cannot be read: {error};"
                " the types must be importable from the handler's module"
            ) from error
        parameters = [
            p.replace(annotation=hints.get(p.name, p.annotation)) for p in plain.parameters.values()
        ]
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise HandlerError(
                f"handler {self.name} takes no positional parameter; the first is the payload"
            )
        # What has a default, as a partial's bound arguments do, is not the bus's to fill.
        parameters[1:] = [p for p in parameters[1:] if p.default is p.empty]
        for place, p in enumerate(parameters):
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise HandlerError(f"handler {self.name}: *args and **kwargs cannot be filled")
            if place and p.kind is p.POSITIONAL_ONLY:
                raise HandlerError(
                    f"handler {self.name}: {p.name!r} is filled by name; put the / before it"
                )
            if p.annotation is p.empty:
                raise HandlerError(f"handler {self.name}: parameter {p.name!r} needs a type")
        return parameters

    def only_watches(self, subscription: Subscription) -> bool:
        """Return whether requests are events like any other here, which somebody else answers.

        So it is for a handler annotated `-> None` that has no group, or a pattern: an answer of its
        own would come before that of whoever serves the subject.
        """
        shared = subscription.group is not None and not has_wildcard(subscription.pattern)
        return self.returns is type(None) and not shared

    def providers(self, offered: Providers) -> dict[str, Callable[[Message], object]]:
        """Return a provider for each dependency. Raises HandlerError for a type nobody offers."""
        found: dict[str, Callable[[Message], object]] = {}
        for name, wanted in self.dependencies.items():
            provider = offered.get(wanted) or _by_subclass(wanted, offered)
            if wanted is Message:
                found[name] = _itself
            elif provider is not None:
                found[name] = provider
            else:
                known = ", ".join(sorted(kind.__name__ for kind in offered)) or "none"
                raise HandlerError(
                    f"handler {self.name}: nothing provides {name}: {_name(wanted)};"
                    f" provided: Message, {known}. A plugin's arc_dependencies or"
                    " bus.provide(type, provider) adds one"
                )
        return found


def compile_handler(signature: Signature, offered: Providers, threads: Executor) -> Handler:
    """Return the one call that runs the handler on a message and returns its result."""
    function = signature.function
    if not _is_async(function):
        function = _in_threads(function, threads)
    take = _envelope if signature.wants_envelope else _payload
    providers = signature.providers(offered)
    if providers:
        return _with_dependencies(function, take, providers)
    # Plain functions: a coroutine round the handler's own would cost as much as a quick handler.
    if signature.wants_envelope:

        def on_envelope(message: Message) -> Awaitable[object]:
            begun: Awaitable[object] = function(message.envelope)
            return begun

        return on_envelope

    def on_payload(message: Message) -> Awaitable[object]:
        begun: Awaitable[object] = function(message.payload)
        return begun

    return on_payload


def _with_dependencies(
    function: Function,
    take: Callable[[Message], Any],
    providers: Mapping[str, Callable[[Message], object]],
) -> Handler:
    async def on_message(message: Message) -> object:
        async with AsyncExitStack() as stack:
            given: dict[str, object] = {}
            for name, provider in providers.items():
                value = provider(message)
                if isinstance(value, _Scope):
                    value = await stack.enter_async_context(value.manager)
                given[name] = value
            return cast("object", await function(take(message), **given))

    return on_message


class _Scope:
    """Marks a provider's async context manager as one to enter for each attempt."""

    __slots__ = ("manager",)

    def __init__(self, manager: AbstractAsyncContextManager[object]) -> None:
        self.manager = manager


def scoped(manager: AbstractAsyncContextManager[object]) -> object:
    """Mark what a provider returns as entered for one attempt and left after it.

    Without it a provider's object is given as it is, even if it happens to be a context manager:
    a connection pool that a plugin shares must not be closed by the first handler.
    """
    return _Scope(manager)


def _payload(message: Message) -> object:
    return cast("object", message.payload)


def _envelope(message: Message) -> object:
    return message.envelope


def _itself(message: Message) -> object:
    return message


def _by_subclass(wanted: object, offered: Providers) -> Callable[[Message], object] | None:
    """A handler may ask for a base class or protocol-like parent of what is offered."""
    if not isinstance(wanted, type):
        return None
    try:
        return next((give for kind, give in offered.items() if issubclass(kind, wanted)), None)
    except TypeError:  # a protocol that cannot be checked at run time
        return None


def _is_async(function: Function) -> bool:
    plain = function.func if isinstance(function, functools.partial) else function
    call = getattr(type(plain), "__call__", None)  # noqa: B004 - it is inspected, not called
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(call)


def _in_threads(function: Function, threads: Executor) -> Function:
    def without_stop(*args: object, **kwargs: object) -> object:
        try:
            return cast("object", function(*args, **kwargs))
        except StopIteration as error:  # no future takes one: it would never be done (gh-112182)
            raise RuntimeError("the handler let a StopIteration out") from error

    async def in_thread(*args: object, **kwargs: object) -> object:
        context = contextvars.copy_context()
        call = functools.partial(context.run, without_stop, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(threads, call)

    return in_thread


def _annotated(function: Any) -> Any:
    """Return what has the annotations: a partial's function, a callable object's `__call__`."""
    if isinstance(function, functools.partial):
        return inspect.unwrap(function.func)
    return inspect.unwrap(function if inspect.isroutine(function) else function.__call__)


def _name(kind: object) -> str:
    return getattr(kind, "__name__", repr(kind))
