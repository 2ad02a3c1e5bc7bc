from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from arc_telemetry.logs import LogBridge, TraceIds
from arc_telemetry.testing import Recorder


@pytest.fixture
def exporter() -> InMemoryLogRecordExporter:
    return InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]


@pytest.fixture
def log(exporter: InMemoryLogRecordExporter) -> logging.Logger:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = logging.Logger("svc.turns")
    logger.addHandler(LogBridge(provider))
    return logger


def test_a_record_carries_the_ids_of_its_span_and_its_structured_fields(
    log: logging.Logger, exporter: InMemoryLogRecordExporter
) -> None:
    recorder = Recorder("svc")
    with recorder.trace_span("turn"):
        log.warning("slow: %d ms", 1200, extra={"hop": "brain", "obj": object()})
    record = exporter.get_finished_logs()[0].log_record
    span = recorder.span("turn")
    assert f"{record.trace_id:032x}" == span.trace_id
    assert f"{record.span_id:016x}" == span.span_id
    assert (record.body, record.severity_text) == ("slow: 1200 ms", "WARN")
    assert dict(record.attributes or {}) == {"hop": "brain"}


def test_an_exception_is_told_by_its_type(
    log: logging.Logger, exporter: InMemoryLogRecordExporter
) -> None:
    try:
        raise KeyError("Alice")
    except KeyError:
        log.exception("failed")
    record = exporter.get_finished_logs()[0].log_record
    assert dict(record.attributes or {}) == {"exception.type": "KeyError"}


def test_the_exporters_own_records_are_not_sent(exporter: InMemoryLogRecordExporter) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    for name in ("opentelemetry.exporter", "grpc._channel", "arc_telemetry.queue"):
        logger = logging.Logger(name)
        logger.addHandler(LogBridge(provider))
        logger.error("cannot export")
    assert exporter.get_finished_logs() == ()


def test_every_log_line_can_name_its_trace() -> None:
    recorder = Recorder("svc")
    formatter = logging.Formatter("%(trace_id)s/%(span_id)s %(message)s")
    record = logging.makeLogRecord({"msg": "hello"})
    assert TraceIds().filter(record)
    assert formatter.format(record) == "/ hello"
    with recorder.trace_span("turn"):
        TraceIds().filter(record)
    span = recorder.span("turn")
    assert formatter.format(record) == f"{span.trace_id}/{span.span_id} hello"
