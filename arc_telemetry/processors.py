"""The SDK's processor interfaces, in front of an `ExportQueue`."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from arc_telemetry.queue import ExportQueue, Limits, Lost
from arc_telemetry.span import MessageSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span


class SpanQueue(SpanProcessor):
    """Queues sampled spans when they end. Reads `OTEL_BSP_*`."""

    def __init__(self, exporter: SpanExporter, lost: Lost, limits: Limits | None = None) -> None:
        """Start the queue."""
        self.queue = ExportQueue[ReadableSpan](
            lambda batch: exporter.export(batch) is SpanExportResult.SUCCESS,
            exporter.shutdown,
            limits or Limits.from_environment("OTEL_BSP", 5000),
            lost,
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span is queued when it ends."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue `span` if it is sampled. Never blocks."""
        if not isinstance(span, MessageSpan):
            context = span.get_span_context()
            if context is None or not context.trace_flags.sampled:
                return
        self.queue.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export all that waits; True if that was tried to the end within the time."""
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Export what waits and stop, within 5 s."""
        self.queue.close(5.0)


class LogQueue(LogRecordProcessor):
    """Queues log records. Reads `OTEL_BLRP_*`."""

    def __init__(
        self, exporter: LogRecordExporter, lost: Lost, limits: Limits | None = None
    ) -> None:
        """Start the queue."""
        self.queue = ExportQueue[ReadableLogRecord](
            lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS,
            exporter.shutdown,
            limits or Limits.from_environment("OTEL_BLRP", 1000),
            lost,
        )

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Queue the record, without the context it was made in. Never blocks."""
        record = copy.copy(log_record.log_record)
        record.context = Context()
        self.queue.put(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export all that waits; True if that was tried to the end within the time."""
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Export what waits and stop, within 5 s."""
        self.queue.close(5.0)
