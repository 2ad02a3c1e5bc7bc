"""OTLP over gRPC: where it may go to, how long it may take, and spans in our own encoding."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind

from arc_bus.errors import ConfigError
from arc_bus.secret import redact
from arc_telemetry.encoding import Unusual, encode_span, field
from arc_telemetry.names import DEFAULT_ENDPOINT
from arc_telemetry.origin import Origin
from arc_telemetry.propagation import TraceParent
from arc_telemetry.recipe import Recipe
from arc_telemetry.span import MessageSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

Signal = Literal["traces", "metrics", "logs"]

TIMEOUT = 3.0
"""Seconds that one export may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise. The SDK's
10 s are more than a service has to stop in."""

CHUNK = 64
"""Spans encoded before the interpreter lock is let go: the event loop waits 0.5 ms for it."""


def endpoint_of(signal: Signal, given: str | None) -> str:
    """Return where `signal` goes: `given`, else what `OTEL_EXPORTER_OTLP_*ENDPOINT` says."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return given or own or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_ENDPOINT


def check_endpoint(signal: Signal, endpoint: str, *, allow_plaintext: bool) -> None:
    """Raise ConfigError if `signal` would cross a network in plain text, or goes nowhere.

    Plain text is what an `http://` endpoint means, and `OTEL_EXPORTER_OTLP_INSECURE=true`.
    """
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    if parts.scheme not in ("", "http", "https") or not parts.hostname:
        raise ConfigError(
            f"OTLP endpoint {redact(endpoint)!r}: expected http://host:port or https://host:port"
        )
    if _plaintext(signal, parts.scheme) and not _loopback(parts.hostname) and not allow_plaintext:
        raise ConfigError(
            f"OTLP endpoint {redact(endpoint)!r} would send {signal} unencrypted to another"
            " machine: use https://, or allow_plaintext=True if the network itself is private"
        )


def _plaintext(signal: Signal, scheme: str) -> bool:
    if scheme == "https":
        return False
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_INSECURE")
    said = own or os.environ.get("OTEL_EXPORTER_OTLP_INSECURE") or ""
    return said.lower() == "true" or scheme == "http"


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def timeout_of(signal: Signal) -> float:
    """Return the seconds one export may take, from `OTEL_EXPORTER_OTLP_*TIMEOUT` (seconds)."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"
    for name in (own, "OTEL_EXPORTER_OTLP_TIMEOUT"):
        text = os.environ.get(name, "").strip()
        if text:
            try:
                return float(text)
            except ValueError:
                raise ConfigError(f"{name}={text!r} is not a number of seconds") from None
    return TIMEOUT


class SpanExporter(OTLPSpanExporter):
    """The SDK's OTLP exporter with our encoder: its headers, TLS, compression and retries stay."""

    def __init__(self, endpoint: str) -> None:
        """Send to `endpoint`; all else comes from `OTEL_EXPORTER_OTLP_*`."""
        super().__init__(endpoint=endpoint, timeout=timeout_of("traces"))
        self._frames: dict[Origin, Frame] = {}

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        ours: dict[Origin, list[bytes]] = {}
        theirs: list[ReadableSpan] = []
        for place, span in enumerate(data, 1):
            if place % CHUNK == 0:
                time.sleep(0)
            try:
                if not isinstance(span, MessageSpan):
                    raise Unusual("a span of the SDK")
                ours.setdefault(span.origin, []).append(field(2, encode_span(span)))
            except Unusual:
                theirs.append(span)
        request = encode_spans(theirs)
        for origin, spans in ours.items():
            frame = self._frames.get(origin)
            if frame is None:
                frame = self._frames[origin] = Frame.of(origin)
            request.MergeFromString(frame.around(spans))
        return request


class Frame:
    """The bytes around the spans of one origin: resource, scope and schema URLs."""

    def __init__(
        self, resource: bytes, scope: bytes, resource_url: bytes, scope_url: bytes
    ) -> None:
        """Take the encoded messages and URLs."""
        self._before = field(1, resource)
        self._after = field(3, resource_url) if resource_url else b""
        self._scope = field(1, scope)
        self._scope_url = field(3, scope_url) if scope_url else b""

    @classmethod
    def of(cls, origin: Origin) -> Frame:
        """Let the SDK's encoder say it once, with a span that is then left out."""
        me = TraceParent("1" * 32, "1" * 16)
        example = MessageSpan(origin, Recipe("", SpanKind.INTERNAL, {}), me)
        resource_spans = encode_spans([example]).resource_spans[0]
        scope_spans = resource_spans.scope_spans[0]
        return cls(
            resource_spans.resource.SerializeToString(),
            scope_spans.scope.SerializeToString(),
            resource_spans.schema_url.encode(),
            scope_spans.schema_url.encode(),
        )

    def around(self, spans: list[bytes]) -> bytes:
        """Return an `ExportTraceServiceRequest` of encoded `spans` fields."""
        scope_spans = field(2, b"".join([self._scope, *spans, self._scope_url]))
        return field(1, self._before + scope_spans + self._after)
