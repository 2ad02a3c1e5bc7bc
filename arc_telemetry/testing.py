"""Recorder: a telemetry that keeps its spans and metrics, for tests of services.

recorder = Recorder()
bus = Bus(service="sherlock", routes={"": "memory://"}, plugins=[recorder])
...
request = recorder.span("process agent.brain.request")
assert recorder.parent(request).name == "request agent.brain.request"
assert recorder.total("messaging.client.sent.messages") == 1
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from arc_telemetry.metrics import Distribution, Label
from arc_telemetry.providers import Providers, resource_of
from arc_telemetry.seen import SeenSpan, from_readable
from arc_telemetry.settings import Settings
from arc_telemetry.telemetry import Telemetry
from arc_telemetry.tracing import OwnSpans, Sampling


class _Keep(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []
        self.waiting: list[Callable[[], object]] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)
        for wake in list(self.waiting):
            wake()


class Recorder(Telemetry):
    """A `Telemetry` whose spans and metrics stay here. It replaces the plugin "telemetry".

    It touches no global provider, no network and no environment variable, `OTEL_SDK_DISABLED`
    excepted. `sampler` is one of the SDK's own.
    """

    def __init__(
        self, service: str = "", settings: Settings | None = None, *, sampler: Sampler = DEFAULT_ON
    ) -> None:
        """Record everything that `sampler` samples."""
        super().__init__(service, settings)
        self._kept = _Keep()
        self._sampler = sampler

    def _find_providers(self) -> Providers:
        sampling = Sampling.of(self._sampler)
        assert sampling is not None, "a sampler of the SDK"
        resource: Resource = resource_of(self.service, self.settings)
        tracer = TracerProvider(sampler=self._sampler, resource=resource, shutdown_on_exit=False)
        tracer.add_span_processor(self._kept)
        spans = OwnSpans(tracer, self._kept, sampling, self.settings.version)
        return Providers(spans, tracer, NoOpMeterProvider(), NoOpLoggerProvider())

    @property
    def spans(self) -> list[SeenSpan]:
        """Every span that has ended, by start."""
        seen = [from_readable(span) for span in self._kept.ended]
        return sorted(seen, key=lambda span: span.start)

    def named(self, name: str) -> list[SeenSpan]:
        """Return the ended spans of that name, by start."""
        return [span for span in self.spans if span.name == name]

    def span(self, name: str) -> SeenSpan:
        """Return the one ended span of that name. Raises AssertionError for none, or more."""
        found = self.named(name)
        names = sorted({span.name for span in self.spans})
        assert len(found) == 1, f"{len(found)} spans are named {name!r}; ended: {names}"
        return found[0]

    async def ended(self, name: str, count: int = 1, timeout: float = 5.0) -> list[SeenSpan]:
        """Return the ended spans of that name once there are `count`; a handler's ends after it.

        Raises TimeoutError, listing the names there are, after `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        more = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(more.set)

        self._kept.waiting.append(wake)
        try:
            async with asyncio.timeout(timeout):
                while sum(span.name == name for span in self._kept.ended) < count:
                    more.clear()
                    await more.wait()
        except TimeoutError:
            names = sorted({span.name for span in self.spans})
            raise TimeoutError(
                f"not {count} spans {name!r} in {timeout} s; ended: {names}"
            ) from None
        finally:
            self._kept.waiting.remove(wake)
        return self.named(name)

    def parent(self, span: SeenSpan) -> SeenSpan:
        """Return the span above. Raises AssertionError for a root, or if it has not ended."""
        assert span.parent_id, f"{span.name!r} is a root"
        found = [other for other in self.spans if other.span_id == span.parent_id]
        assert found, f"the span above {span.name!r} has not ended, or was not recorded here"
        assert found[0].trace_id == span.trace_id, f"{span.name!r} left its parent's trace"
        return found[0]

    def total(self, name: str, labels: Mapping[str, Label] | None = None) -> float:
        """Return a metric's sum over all cells that have `labels`; a histogram's number of values.

        0 for a metric that does not exist.
        """
        wanted = (labels or {}).items()
        numbers = [m.cells for m in self.registry.numbers if m.name == name]
        histograms = [m.cells for m in self.registry.histograms if m.name == name]
        return sum(
            cell.read()
            for cells in numbers
            for key, cell in list(cells.items())
            if wanted <= dict(key).items()
        ) + sum(
            cell.count
            for cells in histograms
            for key, cell in list(cells.items())
            if wanted <= dict(key).items()
        )

    def distribution(self, name: str, labels: Mapping[str, Label]) -> Distribution:
        """Return a histogram's one cell that has `labels`. AssertionError if none or many."""
        found = [
            cell
            for metric in self.registry.histograms
            if metric.name == name
            for having, cell in list(metric.cells.items())
            if labels.items() <= dict(having).items()
        ]
        assert len(found) == 1, f"{len(found)} cells of {name!r} have {dict(labels)}"
        return found[0]

    def series(self, name: str) -> int:
        """Return how many sets of labels a metric has."""
        return sum(len(metric.cells) for metric in self.registry if metric.name == name)

    def clear(self) -> None:
        """Forget the spans; metrics go on."""
        self._kept.ended.clear()
