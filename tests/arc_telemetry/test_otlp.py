from __future__ import annotations

import pytest

from arc_bus.errors import ConfigError
from arc_telemetry import Telemetry
from arc_telemetry.otlp import check_endpoint, endpoint_of, timeout_of
from arc_telemetry.settings import (
    Settings,
    check_propagators,
    exporters,
    from_table,
    switched_off,
)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://localhost:4317",
        "http://127.0.0.1:4317",
        "http://127.8.9.1:4317",
        "http://[::1]:4317",
        "https://collector.example:4317",
        "collector.example:4317",
    ],
)
def test_loopback_and_tls_are_allowed(endpoint: str) -> None:
    check_endpoint("traces", endpoint, allow_plaintext=False)


@pytest.mark.parametrize(
    "endpoint", ["http://collector.example:4317", "http://10.0.0.5:4317", "http://0.0.0.0:4317"]
)
def test_plain_text_across_a_network_is_refused_unless_allowed(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"unencrypted.*allow_plaintext=True"):
        check_endpoint("traces", endpoint, allow_plaintext=False)
    check_endpoint("traces", endpoint, allow_plaintext=True)


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_METRICS_INSECURE"]
)
def test_insecure_by_variable_is_plain_text_too(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "True")
    with pytest.raises(ConfigError, match="metrics unencrypted"):
        check_endpoint("metrics", "collector.example:4317", allow_plaintext=False)
    check_endpoint("metrics", "https://collector.example:4317", allow_plaintext=False)


@pytest.mark.parametrize("endpoint", ["ftp://x:1", "http://", "nonsense://"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="expected http"):
        check_endpoint("traces", endpoint, allow_plaintext=True)


def test_credentials_in_an_endpoint_are_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        check_endpoint("traces", "http://me:hunter2@far.example:4317", allow_plaintext=False)
    assert "hunter2" not in str(caught.value)


def test_where_signals_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert endpoint_of("traces", None) == "http://localhost:4317"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all")
    assert endpoint_of("traces", None) == "http://all"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own")
    assert endpoint_of("traces", None) == "http://own"
    assert endpoint_of("traces", "http://given") == "http://given"
    assert endpoint_of("logs", None) == "http://all"


def test_how_long_an_export_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timeout_of("traces") == 3.0
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    assert timeout_of("traces") == 7.0
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_TRACES_TIMEOUT='soon'"):
        timeout_of("traces")


def test_settings_come_from_a_table_and_wrong_ones_are_named() -> None:
    settings = from_table({"relation": "link", "templates": ["orders.*.made"], "logs": True})
    assert settings == Settings(relation="link", templates=("orders.*.made",), logs=True)
    with pytest.raises(ConfigError, match=r"colour.*known: enabled, endpoint"):
        from_table({"colour": "red"})
    with pytest.raises(ConfigError, match=r"did you mean 'endpoint'\? known: enabled"):
        from_table({"endpiont": "http://localhost:4317"})
    with pytest.raises(ConfigError, match="relation"):
        from_table({"relation": "cousin"})
    with pytest.raises(ConfigError, match="stop_within=0"):
        from_table({"stop_within": 0})


@pytest.mark.parametrize(("said", "off"), [("true", True), (" TRUE ", True), ("1", False)])
def test_only_the_word_true_switches_off(
    monkeypatch: pytest.MonkeyPatch, said: str, off: bool
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", said)
    assert switched_off() is off


def test_an_exporter_or_protocol_that_is_not_here_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp, console")
    assert exporters("traces") == ("otlp", "console")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match="OTEL_TRACES_EXPORTER='zipkin'"):
        exporters("traces")
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(
        ConfigError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL='http/protobuf'.*speaks grpc"
    ):
        exporters("traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    assert exporters("traces") == ()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_LOGS_PROTOCOL='http/json'"):
        exporters("logs")


def test_other_propagators_than_the_one_written_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "baggage, tracecontext")
    check_propagators()
    monkeypatch.setenv("OTEL_PROPAGATORS", "b3")
    with pytest.raises(ConfigError, match=r"OTEL_PROPAGATORS='b3'.*add tracecontext"):
        Telemetry("svc").start()
