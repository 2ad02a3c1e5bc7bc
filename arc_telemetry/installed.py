"""Whether the extra `telemetry` is installed."""

from __future__ import annotations

from importlib import import_module

from arc_bus.errors import MissingExtra


def check_installed() -> None:
    """Raise MissingExtra, with the pip command, unless OpenTelemetry's SDK and exporter are in."""
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtra("telemetry", error.name or module) from error
