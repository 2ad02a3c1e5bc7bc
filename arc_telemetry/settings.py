"""Settings: what telemetry is told by its constructor, or by `[telemetry]` in `arc.toml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from arc_bus.errors import ConfigError, of_options


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not said by the standard `OTEL_*` variables, which all hold as well.

    `endpoint` is where OTLP over gRPC goes; `version` and `environment` of the service go into the
    resource. `logs` sends what the standard library's root logger handles as well. `relation` says
    whether a `process` span continues its message's trace ("parent", and links to it) or starts its
    own and only links ("link"). `baggage` passes W3C baggage on, which may hold what users said.
    `database` adds spans of SQLAlchemy statements. `templates` are patterns, such as
    `orders.*.created`, by which metrics and spans name destinations that no contract describes.
    `prometheus`, such as "localhost:9464", serves `/metrics` there while a bus runs.
    `stop_within` bounds the shutdown, and every `ask_every` the brokers and the outbox are asked
    how much waits, both in seconds.
    """

    enabled: bool = True
    endpoint: str | None = None
    allow_plaintext: bool = False
    version: str = ""
    environment: str = "development"
    traces: bool = True
    metrics: bool = True
    logs: bool = False
    relation: Literal["parent", "link"] = "parent"
    baggage: bool = False
    database: bool = True
    templates: tuple[str, ...] = ()
    prometheus: str = ""
    stop_within: float = 5.0
    ask_every: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.stop_within <= 60:
            raise ConfigError(f"telemetry: stop_within={self.stop_within} must be in 0..60 seconds")
        if self.ask_every <= 0:
            raise ConfigError(f"telemetry: ask_every={self.ask_every} must be above 0 seconds")


def from_table(table: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration table. Raises ConfigError naming key and value."""
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        told = of_options(error, Settings.__struct_fields__)
        raise ConfigError(f"settings of telemetry: {told}") from error


def switched_off() -> bool:
    """Return whether `OTEL_SDK_DISABLED` is true: only that word counts, in any case."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def exporters(signal: Literal["traces", "metrics", "logs"]) -> tuple[str, ...]:
    """Return the names in `OTEL_<SIGNAL>_EXPORTER`, empty if it is not set.

    Raises ConfigError for one that this package does not have.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    chosen = tuple(n.strip() for n in os.environ.get(variable, "").split(",") if n.strip())
    for name in chosen:
        if name not in ("otlp", "console", "none"):
            raise ConfigError(
                f"{variable}={name!r}: known are otlp, console and none; for another exporter set"
                " OpenTelemetry's providers up yourself, they will be used"
            )
    if "otlp" in (chosen or ("otlp",)):
        _check_protocol(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
    return chosen


def check_propagators() -> None:
    """Raise ConfigError if `OTEL_PROPAGATORS` asks for another form than the one that is written.

    Baggage is passed on only if `Settings.baggage` says so: the variable is often set without a
    thought of what users said.
    """
    said = os.environ.get("OTEL_PROPAGATORS", "tracecontext")
    if "tracecontext" not in [name.strip() for name in said.split(",")]:
        raise ConfigError(
            f"OTEL_PROPAGATORS={said!r}: messages carry W3C trace context; add tracecontext, or"
            " leave the variable unset"
        )


def _check_protocol(own: str) -> None:
    variable = own if os.environ.get(own) else "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = os.environ.get(variable) or "grpc"
    if protocol != "grpc":
        raise ConfigError(
            f"{variable}={protocol!r}: this package speaks grpc; for another protocol set"
            " OpenTelemetry's providers up yourself, they will be used"
        )
