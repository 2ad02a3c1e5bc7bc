"""trace_span: a span round a block of code or a function, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from arc_bus.errors import ConfigError
from arc_telemetry.metrics import Label

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from arc_telemetry.tracing import SpanStarter

P = ParamSpec("P")
R = TypeVar("R")


class TraceSpan:
    """A span round `with`, `async with`, or every call of a decorated function.

    It is the current span meanwhile, so that what is published, stored or traced inside is below
    it. An exception sets its status and `error.type`, and its text is left out unless
    `record_exceptions`, for it may be a user's. A cancellation is no error. One object serves one
    block at a time; as a decorator it makes a new one for each call.

    In an async generator that is left half-way, the block may end in another context than it
    began in: the span then ends, and the other context is left as it is.
    """

    __slots__ = ("_attributes", "_name", "_outside", "_record", "_span", "_starter", "_token")

    def __init__(
        self,
        starter: Callable[[], SpanStarter | None],
        name: str,
        attributes: Mapping[str, Label] | None = None,
        *,
        record_exceptions: bool = False,
    ) -> None:
        """Name the span; `starter` is asked when a block begins, and None means no telemetry."""
        self._starter = starter
        self._name = name
        self._attributes = attributes
        self._record = record_exceptions
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        self._outside: Context | None = None

    @property
    def span(self) -> Span | None:
        """The running span, for what only OpenTelemetry's own API can say; None outside."""
        return self._span

    def set_attribute(self, name: str, value: Label) -> None:
        """Set one attribute of the running span; nothing happens outside the block."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def add_event(self, name: str, attributes: Mapping[str, Label] | None = None) -> None:
        """Note an event on the running span; nothing happens outside the block."""
        if self._span is not None:
            self._span.add_event(name, dict(attributes or {}))

    def __enter__(self) -> Self:
        starter = self._starter()
        if starter is None:
            return self
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, get_current_span, set_span_in_context

        from arc_telemetry.recipe import Recipe
        from arc_telemetry.span import parent_of

        recipe = Recipe(self._name, SpanKind.INTERNAL, dict(self._attributes or {}))
        self._span = starter.start(recipe, parent_of(get_current_span()))
        self._outside = context.get_current()
        self._token = context.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        span, token, outside = self._span, self._token, self._outside
        self._span = self._token = self._outside = None
        if span is None or token is None or outside is None:
            return
        from opentelemetry import context
        from opentelemetry.trace import get_current_span

        from arc_telemetry.spans import fail

        if error is not None and kind is not GeneratorExit and span.is_recording():
            fail(span, error)
            if self._record:
                span.record_exception(error)
        if kind is GeneratorExit and get_current_span() is span:
            context.attach(outside)  # a token is of use only in the context that it is from
        elif kind is not GeneratorExit:
            context.detach(token)
        span.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function` with a span round each call.

        Raises ConfigError for a generator function: its body runs in its caller's contexts, piece
        by piece, so there is no one span to be round it.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                f"@trace_span cannot decorate the generator {function.__qualname__!r};"
                " use `with trace_span(...)` inside it, round what runs between two yields"
            )
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", self._around_coroutine(function))

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again():
                return function(*args, **kwargs)

        return called

    def _around_coroutine(
        self, function: Callable[P, Awaitable[Any]]
    ) -> Callable[P, Awaitable[Any]]:
        @functools.wraps(function)
        async def called(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return called

    def _again(self) -> TraceSpan:
        return TraceSpan(
            self._starter, self._name, self._attributes, record_exceptions=self._record
        )
