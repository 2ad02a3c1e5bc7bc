"""Receiver: a small OTLP gRPC server in this process, for development without a collector.

It keeps what it gets in memory, the newest `keep` of each signal. It can be made to refuse, or to
take its time, to see what a service does then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, TypeVar

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import (  # pyright: ignore[reportMissingTypeStubs]
    logs_service_pb2 as logs,
)
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace

from arc_bus.errors import ConfigError
from arc_telemetry.seen import SeenLog, SeenPoint, SeenSpan, logs_of, points_of, spans_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

T = TypeVar("T")


class Receiver:
    """An async context manager; `endpoint` is the URL to export to while it is entered.

    `refusing` answers every request with UNAVAILABLE, `delay` makes each wait so many seconds.
    `headers` are those of the newest requests; each of `listeners` is called with new spans.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, keep: int = 100_000) -> None:
        """Listen on `port` once entered; 0 chooses a free one. ConfigError if it is taken."""
        self.spans: deque[SeenSpan] = deque(maxlen=keep)
        self.points: deque[SeenPoint] = deque(maxlen=keep)
        self.logs: deque[SeenLog] = deque(maxlen=keep)
        self.headers: deque[dict[str, str]] = deque(maxlen=keep)
        self.listeners: list[Callable[[Sequence[SeenSpan]], None]] = []
        self.refusing = False
        self.delay = 0.0
        self._host = host
        self._port = port
        self._arrived = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    @property
    def endpoint(self) -> str:
        """The URL to give as `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        # Else gRPC shares the port with a collector that has it, and each gets half.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(self._handlers())
        try:
            self._port = server.add_insecure_port(f"{self._host}:{self._port}")
        except RuntimeError as error:
            raise ConfigError(f"receiver: cannot listen on {self._host}:{self._port}") from error
        await server.start()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)

    async def wait_for(self, found: Callable[[Receiver], T], timeout: float = 10.0) -> T:
        """Return `found(self)` once it is true; asked whenever something has arrived.

        Raises TimeoutError, saying how much is there, after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout), self._arrived:
                while not (result := found(self)):
                    await self._arrived.wait()
                return result
        except TimeoutError:
            raise TimeoutError(
                f"not within {timeout} s; received: {len(self.spans)} spans"
                f" ({sorted({span.name for span in self.spans})}),"
                f" {len(self.points)} metric points, {len(self.logs)} log records"
            ) from None

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """Return the spans of one trace that have arrived, by start."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.start)

    async def _take(
        self,
        context: Context,
        spans: Sequence[SeenSpan] = (),
        points: Sequence[SeenPoint] = (),
        records: Sequence[SeenLog] = (),
    ) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
        metadata = context.invocation_metadata() or ()
        self.headers.append({str(key): str(value) for key, value in metadata})
        async with self._arrived:
            self.spans.extend(spans)
            self.points.extend(points)
            self.logs.extend(records)
            if spans:
                for listener in list(self.listeners):
                    listener(spans)
            self._arrived.notify_all()

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the three services of OTLP, by the names in opentelemetry-proto."""

        async def traces(request: trace.ExportTraceServiceRequest, context: Context) -> Any:
            await self._take(context, spans=list(spans_of(request.resource_spans)))
            return trace.ExportTraceServiceResponse()

        async def points(request: metrics.ExportMetricsServiceRequest, context: Context) -> Any:
            await self._take(context, points=list(points_of(request.resource_metrics)))
            return metrics.ExportMetricsServiceResponse()

        async def records(request: logs.ExportLogsServiceRequest, context: Context) -> Any:
            await self._take(context, records=list(logs_of(request.resource_logs)))
            return logs.ExportLogsServiceResponse()

        return (
            _handler("trace", "Trace", traces, trace.ExportTraceServiceRequest),
            _handler("metrics", "Metrics", points, metrics.ExportMetricsServiceRequest),
            _handler("logs", "Logs", records, logs.ExportLogsServiceRequest),
        )


def _handler(
    package: str, service: str, export: Callable[..., Any], request: Any
) -> grpc.GenericRpcHandler:
    def encode(answer: Any) -> bytes:
        encoded: bytes = answer.SerializeToString()
        return encoded

    method: Any = grpc.unary_unary_rpc_method_handler(export, request.FromString, encode)
    name = f"opentelemetry.proto.collector.{package}.v1.{service}Service"
    return grpc.method_handlers_generic_handler(name, {"Export": method})
