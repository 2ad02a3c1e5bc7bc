"""Starting spans: by our own light tracer where the providers are ours, by the host's otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    Tracer,
    set_span_in_context,
)

from arc_bus.envelope import new_trace_id
from arc_telemetry.forwarded import ForwardedSpan, span_context
from arc_telemetry.names import SCHEMA_URL, SCOPE
from arc_telemetry.origin import Origin
from arc_telemetry.propagation import SAMPLED, TraceParent, inherited
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import MessageSpan

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler

ALL = 1 << 64
"""A sampling bound above every trace id: all roots are recorded."""
_RATIO = re.compile(r"TraceIdRatioBased\{([0-9.e+-]+)\}")
_FOLLOWS_PARENT = re.compile(
    r"ParentBased\{root:(.*),remoteParentSampled:AlwaysOnSampler,"
    r"remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,"
    r"localParentNotSampled:AlwaysOffSampler\}"
)


class SpanStarter(Protocol):
    """Starts spans; two implementations, because only our own providers know light spans.

    `names_roots` says whether a root can be given its trace id without standing below a parent
    that nobody recorded.
    """

    names_roots: bool

    @property
    def sampling(self) -> Sampling | None:
        """What is known of the sampler."""
        ...

    def start(
        self,
        recipe: Recipe,
        parent: TraceParent | None,
        *,
        remote: bool = False,
        trace_id: str = "",
        linked: TraceParent | None = None,
    ) -> Span:
        """Return a started span, or one that only carries ids if the sampler says so.

        `parent` is the span above, `remote` whether another process has it. Without one the span
        is a root, of the trace `trace_id` (32 hex digits) if that is given. `linked` is one span
        to link to.
        """
        ...


class Sampling:
    """A sampler's decisions as two facts, so that asking costs nothing for an unsampled message.

    `bound` is the number below which the low 64 bits of a root's trace id are sampled;
    `follows` whether a span with a parent does as its parent did.
    """

    __slots__ = ("bound", "follows")

    def __init__(self, bound: int, *, follows: bool) -> None:
        """Take both facts."""
        self.bound = bound
        self.follows = follows

    @classmethod
    def of(cls, sampler: Sampler) -> Sampling | None:
        """Return what `sampler.get_description()` says; None if it is none of the SDK's own."""
        description = sampler.get_description()
        found = _FOLLOWS_PARENT.fullmatch(description)
        root = found[1] if found else description
        ratio = _RATIO.fullmatch(root)
        if ratio is not None:
            return cls(TraceIdRatioBased.get_bound_for_rate(float(ratio[1])), follows=bool(found))
        bounds = {"AlwaysOnSampler": ALL, "AlwaysOffSampler": 0}
        return cls(bounds[root], follows=bool(found)) if root in bounds else None

    def drops_root(self, trace_id: str) -> bool:
        """Return whether a root of that trace id is not recorded."""
        return int(trace_id[16:], 16) >= self.bound

    def samples(self, trace_id: str, parent: TraceParent | None) -> bool:
        """Return whether a span of this trace below `parent` is to be recorded."""
        if parent is not None and self.follows:
            return parent.sampled
        if self.bound >= ALL:
            return True
        return bool(self.bound) and int(trace_id[16:], 16) < self.bound


class OwnSpans:
    """Starts `MessageSpan`s that end in the processors of a provider this package made."""

    names_roots = True

    def __init__(
        self, provider: TracerProvider, processor: SpanProcessor, sampling: Sampling, version: str
    ) -> None:
        """Take the provider, the processor that it was given, and what its sampler does."""
        scope = InstrumentationScope(SCOPE, version, SCHEMA_URL)
        self._origin = Origin(provider.resource, scope, SpanLimits(), processor.on_end)
        self.sampling = sampling

    def start(
        self,
        recipe: Recipe,
        parent: TraceParent | None,
        *,
        remote: bool = False,
        trace_id: str = "",
        linked: TraceParent | None = None,
    ) -> Span:
        """Return a started span; see `SpanStarter`."""
        if parent is None:
            trace_id = trace_id or new_trace_id()
            flags, state = 0, ""
        else:
            trace_id, flags, state = parent.trace_id, parent.flags, parent.state
        if not self.sampling.samples(trace_id, parent):
            if parent is not None and not parent.sampled:
                return ForwardedSpan(parent.headers)
            me = TraceParent(trace_id, new_trace_id()[:16], flags & ~SAMPLED, state)
            return ForwardedSpan(me.headers)
        me = TraceParent(trace_id, new_trace_id()[:16], flags | SAMPLED, state)
        span = MessageSpan(self._origin, recipe, me)
        span.above = parent
        span.above_remote = remote
        span.linked = linked
        return span


class HostSpans:
    """Starts spans of a host application's tracer: the SDK's, at the SDK's cost."""

    names_roots = False

    def __init__(self, tracer: Tracer, sampling: Sampling | None) -> None:
        """Take the host's tracer, and what is known of its sampler."""
        self._tracer = tracer
        self.sampling = sampling

    def start(
        self,
        recipe: Recipe,
        parent: TraceParent | None,
        *,
        remote: bool = False,
        trace_id: str = "",
        linked: TraceParent | None = None,
    ) -> Span:
        """Return a started span; see `SpanStarter`."""
        sampling = self.sampling
        if sampling and sampling.follows and parent is not None and not parent.sampled:
            return ForwardedSpan(parent.headers)
        if parent is None and trace_id and (sampling is None or sampling.samples(trace_id, None)):
            # A host's tracer cannot be told the trace id of a root, only that of a parent.
            parent, remote = inherited(trace_id), True
        return self._tracer.start_span(
            recipe.name,
            context=_context(parent, remote=remote),
            kind=recipe.kind,
            attributes=recipe.attributes,
            links=[Link(span_context(linked, remote=True))] if linked else None,
            record_exception=False,
            set_status_on_exception=False,
        )


def _context(parent: TraceParent | None, *, remote: bool) -> Context:
    """Return a context in which `parent` is the current span, or in which there is none."""
    from opentelemetry.context import Context

    if parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(span_context(parent, remote=remote)))
