"""The bridge from the standard library's logging: OTLP log records, and trace ids in log lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import get_value
from opentelemetry.trace import get_current_span

from arc_telemetry import names
from arc_telemetry.queue import SUPPRESS
from arc_telemetry.timing import error_type

if TYPE_CHECKING:
    from opentelemetry.util.types import AnyValue

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "trace_id", "span_id"}
_TEXTS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_QUIET = ("opentelemetry", "grpc", "arc_telemetry")


class TraceIds(logging.Filter):
    """Puts `trace_id` and `span_id` of the current span on each record, for any formatter.

    Both are empty outside a span: `%(trace_id)s` never fails. It lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids."""
        context = get_current_span().get_span_context()
        record.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
        record.span_id = f"{context.span_id:016x}" if context.is_valid else ""
        return True


class LogBridge(logging.Handler):
    """Sends records to an OpenTelemetry logger provider, with the ids of the current span.

    What was given as `extra=` becomes attributes, as far as it is text, number or truth value.
    Records of the exporting itself are left out: a failure to export would feed itself. An
    exception is told by its type only.
    """

    def __init__(self, provider: LoggerProvider, level: int = logging.NOTSET) -> None:
        """Log to `provider` what is at least of `level`."""
        super().__init__(level)
        self._provider = provider
        self._loggers: dict[str, Logger] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; one that cannot be sent is left to `handleError`, as handlers do."""
        if record.name.startswith(_QUIET) or get_value(SUPPRESS):
            return
        try:
            self._logger(record.name).emit(_translate(record))
        except Exception:
            self.handleError(record)

    def _logger(self, name: str) -> Logger:
        found = self._loggers.get(name)
        if found is None:
            found = self._loggers[name] = self._provider.get_logger(name)
        return found


def _translate(record: logging.LogRecord) -> LogRecord:
    return LogRecord(
        timestamp=int(record.created * 1e9),
        severity_text=_TEXTS.get(record.levelname, record.levelname),
        severity_number=_severity(record.levelno),
        body=record.getMessage(),
        attributes=_attributes(record),
    )


def _attributes(record: logging.LogRecord) -> Mapping[str, AnyValue]:
    attributes: dict[str, AnyValue] = {
        key: value
        for key, value in vars(record).items()
        if key not in _OWN and isinstance(value, (str, bool, int, float))
    }
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        attributes[names.EXCEPTION_TYPE] = error_type(error)
    return attributes


def _severity(level: int) -> SeverityNumber:
    """Return OpenTelemetry's number of a logging level (log data model, "SeverityNumber")."""
    for least, number in (
        (logging.CRITICAL, SeverityNumber.FATAL),
        (logging.ERROR, SeverityNumber.ERROR),
        (logging.WARNING, SeverityNumber.WARN),
        (logging.INFO, SeverityNumber.INFO),
        (logging.DEBUG, SeverityNumber.DEBUG),
    ):
        if level >= least:
            return number
    return SeverityNumber.TRACE
