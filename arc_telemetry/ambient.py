"""The variable in which OpenTelemetry keeps its current context, for the path of every message.

`context.get_current`, `attach` and `detach` each call two Python functions round one call of a
`ContextVar`, three times a message. The variable itself is found through that public API: the
token that `attach` returns names it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from opentelemetry import context
from opentelemetry.context import Context


def _variable() -> ContextVar[Context]:
    token = context.attach(context.get_current())
    context.detach(token)
    return token.var


AMBIENT: Final = _variable()
