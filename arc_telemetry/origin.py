"""Origin: what all spans of one tracer share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from arc_telemetry.span import MessageSpan


class Origin:
    """What all spans of one tracer share: where they come from, and what is done when they end."""

    __slots__ = ("end", "limits", "resource", "scope")

    def __init__(
        self,
        resource: Resource,
        scope: InstrumentationScope,
        limits: SpanLimits,
        end: Callable[[MessageSpan], None],
    ) -> None:
        """Take the provider's resource and limits, this package's scope, and the processors."""
        self.resource = resource
        self.scope = scope
        self.limits = limits
        self.end = end
