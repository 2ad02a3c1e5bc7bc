"""SeenSpan, SeenPoint, SeenLog: what was exported, in plain values, for tests and for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from arc_telemetry import names

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span
    from opentelemetry.sdk.trace import ReadableSpan

Value: TypeAlias = str | bool | int | float | bytes | list["Value"] | dict[str, "Value"] | None
Attributes: TypeAlias = Mapping[str, Value]

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")


class SeenEvent(msgspec.Struct, frozen=True):
    """Something that happened during a span, at `at` (ns since the epoch)."""

    name: str
    at: int
    attributes: Attributes


class SeenSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span. Ids are lower-case hex, `parent_id` empty for a root; times are ns since the epoch.

    `kind` is internal, server, client, producer or consumer; `status` unset, ok or error; `links`
    are (trace id, span id) pairs; `resource` says who recorded it.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    status: str
    attributes: Attributes
    events: tuple[SeenEvent, ...]
    links: tuple[tuple[str, str], ...]
    resource: Attributes

    @property
    def service(self) -> str:
        """The service that recorded it."""
        return str(self.resource.get(names.SERVICE_NAME, ""))

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e6


class SeenPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a metric. A histogram has `buckets` and `bounds`, and `value` is its sum."""

    name: str
    unit: str
    kind: str
    attributes: Attributes
    value: float
    count: int = 0
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    resource: Attributes = msgspec.field(default_factory=dict[str, Value])


class SeenLog(msgspec.Struct, frozen=True, kw_only=True):
    """One log record; ids are empty outside a span."""

    body: Value
    severity: str
    trace_id: str
    span_id: str
    attributes: Attributes
    resource: Attributes


def from_readable(span: ReadableSpan) -> SeenSpan:
    """Return a span as the SDK hands it to exporters."""
    context = span.get_span_context()
    assert context is not None, "every span that was started has a context"
    return SeenSpan(
        name=span.name,
        kind=span.kind.name.lower(),
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else "",
        start=span.start_time or 0,
        end=span.end_time or 0,
        status=span.status.status_code.name.lower(),
        attributes=_plain(span.attributes),
        events=tuple(SeenEvent(e.name, e.timestamp, _plain(e.attributes)) for e in span.events),
        links=tuple(
            (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links
        ),
        resource=_plain(span.resource.attributes),
    )


def _plain(attributes: Mapping[str, object] | None) -> Attributes:
    return {key: _value_of(value) for key, value in (attributes or {}).items()}


def _value_of(value: object) -> Value:
    if value is None or isinstance(value, (str, bool, int, float, bytes)):
        return value
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {str(key): _value_of(item) for key, item in pairs}
    if isinstance(value, Iterable):
        return [_value_of(item) for item in cast("Iterable[object]", value)]
    return str(value)


def spans_of(resource_spans: Iterable[ResourceSpans]) -> Iterator[SeenSpan]:
    """Give the spans of an OTLP request."""
    for group in resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: Span, resource: Attributes) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=_STATUSES[span.status.code],
        attributes=_attributes(span.attributes),
        events=tuple(
            SeenEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        resource=resource,
    )


def points_of(resource_metrics: Iterable[ResourceMetrics]) -> Iterator[SeenPoint]:
    """Give the points of an OTLP request."""
    for group in resource_metrics:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                yield from _points(metric, resource)


def _points(metric: Metric, resource: Attributes) -> Iterator[SeenPoint]:
    kind = metric.WhichOneof("data") or ""
    if kind == "histogram":
        for spread in metric.histogram.data_points:
            yield SeenPoint(
                name=metric.name,
                unit=metric.unit,
                kind=kind,
                attributes=_attributes(spread.attributes),
                value=spread.sum,
                count=spread.count,
                buckets=tuple(spread.bucket_counts),
                bounds=tuple(spread.explicit_bounds),
                resource=resource,
            )
        return
    for point in (metric.sum if kind == "sum" else metric.gauge).data_points:
        whole = point.WhichOneof("value") == "as_int"
        yield SeenPoint(
            name=metric.name,
            unit=metric.unit,
            kind=kind,
            attributes=_attributes(point.attributes),
            value=point.as_int if whole else point.as_double,
            resource=resource,
        )


def logs_of(resource_logs: Iterable[ResourceLogs]) -> Iterator[SeenLog]:
    """Give the log records of an OTLP request."""
    for group in resource_logs:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield SeenLog(
                    body=_any(record.body),
                    severity=record.severity_text,
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    attributes=_attributes(record.attributes),
                    resource=resource,
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _any(pair.value) for pair in pairs}


def _any(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_any(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    plain: str | bool | int | float | bytes = getattr(value, kind)
    return plain
