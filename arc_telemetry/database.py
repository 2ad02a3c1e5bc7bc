"""Database spans: statements of SQLAlchemy below the span that is current when they run.

How they meet the store: SQLAlchemy tells listeners on its class `Engine` of every statement of
every engine, so nothing need be known of the store, nor imported from it. While a bus with
telemetry runs such a listener is there; it does nothing unless a recorded span is current, so
that only work inside a traced handler or `trace_span` shows up. One engine alone, without a bus:
`instrument_engine`. Neither the statement's text nor its parameters are ever attributes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.trace import Span, SpanKind, get_current_span

from arc_telemetry import names
from arc_telemetry.metrics import Label
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import parent_of
from arc_telemetry.spans import fail
from arc_telemetry.tracing import SpanStarter

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

_VERB = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|MERGE|COPY|CREATE|ALTER|DROP|SET)\b", re.I)
_TARGET = re.compile(
    r'\b(?:FROM|INTO|UPDATE|TABLE|COPY)\s+(?:ONLY\s+|IF\s+(?:NOT\s+)?EXISTS\s+)?([\w."]+)', re.I
)
_RUNNING = "arc_telemetry.running"


class StatementTracing:
    """A pair of listeners, and what they do. `start` and `stop` are idempotent."""

    def __init__(self, spans: SpanStarter, engine: Engine | None = None) -> None:
        """Trace the statements of `engine`, or of every engine if None."""
        self._spans = spans
        self._engine = engine
        self._listening = False

    def start(self, *, only_if_loaded: bool = False) -> None:
        """Listen from now on; `only_if_loaded`: unless nobody has imported SQLAlchemy."""
        if self._listening or (only_if_loaded and "sqlalchemy" not in sys.modules):
            return
        self._each("listen")
        self._listening = True

    def stop(self) -> None:
        """Stop listening."""
        if self._listening:
            self._listening = False
            self._each("remove")

    def _each(self, action: str) -> None:
        from sqlalchemy import Engine, event

        do: Callable[..., object] = getattr(event, action)
        target = self._engine if self._engine is not None else Engine
        do(target, "before_cursor_execute", self._before)
        do(target, "after_cursor_execute", self._after)
        do(target, "handle_error", self._failed)

    def _before(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        many: bool,
    ) -> None:
        current = get_current_span()
        if not current.is_recording():
            return
        recipe = _recipe(statement, connection.dialect.name, *_place(connection))
        span = self._spans.start(recipe, parent_of(current))
        if many:
            span.set_attribute(names.DB_BATCH_SIZE, len(parameters))
        connection.info.setdefault(_RUNNING, []).append(span)

    def _after(self, connection: Connection, *_: object) -> None:
        span = _pop(connection)
        if span is not None:
            span.end()

    def _failed(self, failure: ExceptionContext) -> None:
        span = _pop(failure.connection) if failure.connection is not None else None
        if span is not None:
            fail(span, failure.original_exception)
            span.end()


def instrument_engine(engine: Engine | AsyncEngine, spans: SpanStarter) -> Callable[[], None]:
    """Trace the statements of one engine with `spans`; the returned callable ends that."""
    sync: Engine | None = getattr(engine, "sync_engine", None)
    tracing = StatementTracing(spans, sync or cast("Engine", engine))
    tracing.start()
    return tracing.stop


def _pop(connection: Connection) -> Span | None:
    running: list[Span] = connection.info.get(_RUNNING) or []
    return running.pop() if running else None


def _place(connection: Connection) -> tuple[str, str, int]:
    url = connection.engine.url
    return url.database or "", url.host or "", url.port or 0


@lru_cache(maxsize=512)
def _recipe(statement: str, system: str, database: str, host: str, port: int) -> Recipe:
    """Return the span of a statement; statements repeat, so they are read once."""
    verb = _VERB.search(statement)
    target = _TARGET.search(statement)
    operation = verb[1].upper() if verb else statement.split(None, 1)[0].upper()[:32]
    attributes: dict[str, Label] = {names.DB_SYSTEM: system, names.DB_OPERATION: operation}
    if database:
        attributes[names.DB_NAMESPACE] = database
    if host:
        attributes[names.SERVER_ADDRESS] = host
    if port:
        attributes[names.SERVER_PORT] = port
    name = operation
    if target is not None:
        collection = target[1].replace('"', "")
        attributes[names.DB_COLLECTION] = collection
        name = f"{operation} {collection}"
    return Recipe(name, SpanKind.CLIENT, attributes)
