"""The registry as a page that Prometheus reads: for services without a collector.

Names follow OpenTelemetry's rules for Prometheus ("Prometheus and OpenMetrics Compatibility"):
dots become underscores, the unit is a suffix, a counter ends in `_total`. A collector that exports
to Prometheus makes the same names, so one dashboard serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager

from arc_bus.http import MISSING, Page, serving
from arc_telemetry import names
from arc_telemetry.metrics import Distribution, Kind, Label, Labels, Metric, Readable, Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_:]+")


def name_of(name: str, unit: str, kind: Kind) -> str:
    """Return a metric's name in Prometheus, without a histogram's `_bucket`, `_sum`, `_count`."""
    plain = _NOT_ALLOWED.sub("_", name)
    suffix = _UNITS.get(unit, "")
    if suffix and not plain.endswith(f"_{suffix}"):
        plain = f"{plain}_{suffix}"
    return f"{plain}_total" if kind is Kind.COUNTER else plain


def exposition(registry: Registry, resource: Mapping[str, Label] | None = None) -> str:
    """Return every metric that has a value, in Prometheus' text format 0.0.4."""
    lines: list[str] = []
    if resource:
        lines += ["# TYPE target_info gauge", f"target_info{_labels(tuple(resource.items()))} 1"]
    for number in registry.numbers:
        lines += _number(number)
    for histogram in registry.histograms:
        lines += _histogram(histogram)
    return "\n".join(lines) + "\n"


def _number(metric: Metric[Readable]) -> Iterator[str]:
    name = name_of(metric.name, metric.unit, metric.kind)
    cells = list(metric.cells.items())
    if cells:
        yield f"# TYPE {name} {metric.kind.value}"
    for labels, cell in cells:
        yield f"{name}{_labels(labels)} {cell.read():g}"


def _histogram(metric: Metric[Distribution]) -> Iterator[str]:
    name = name_of(metric.name, metric.unit, metric.kind)
    cells = list(metric.cells.items())
    if cells:
        yield f"# TYPE {name} histogram"
    for labels, cell in cells:
        counts, total = cell.snapshot()
        below = 0
        for bound, count in zip((*metric.bounds, float("inf")), counts, strict=True):
            below += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f"{name}_bucket{_labels((*labels, ('le', edge)))} {below}"
        yield f"{name}_sum{_labels(labels)} {total:g}"
        yield f"{name}_count{_labels(labels)} {below}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    told = ",".join(f'{_NOT_ALLOWED.sub("_", key)}="{_escaped(value)}"' for key, value in labels)
    return f"{{{told}}}"


def _escaped(value: Label) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def page(
    registry: Registry, place: str, resource: Mapping[str, Label] | None = None
) -> AbstractAsyncContextManager[int]:
    """Serve `/metrics` at `place` ("host:port"; port 0 chooses one) and give the port.

    Raises ConfigError if `place` is no such thing, or taken. Whoever can reach it can read it:
    it names destinations and counts, never payloads.
    """

    async def answer(path: str) -> Page:
        if path not in ("/metrics", "/metrics/"):
            return MISSING
        return Page(200, CONTENT_TYPE, exposition(registry, resource).encode())

    return serving(place, answer)


def resource_of(service: str, version: str, environment: str) -> dict[str, Label]:
    """Return who we are, as `target_info` tells it."""
    told = {
        names.SERVICE_NAME: service,
        names.SERVICE_VERSION: version,
        names.DEPLOYMENT_ENVIRONMENT: environment,
    }
    return {key: value for key, value in told.items() if value}
