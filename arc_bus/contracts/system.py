"""What every service says about itself."""

from __future__ import annotations

from typing import Literal, TypeAlias

from arc_bus.contracts.fields import JsonObject, Payload, Text
from arc_bus.contracts.registry import Contract

Status: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
"""How well a service is."""


class Heartbeat(Payload, frozen=True, kw_only=True):
    """A sign of life, every 30 s.

    `service` is the publishing service, the same as the envelope's. `metrics` holds
    active_sessions, cpu_percent, memory_mb and whatever else the service measures.

    Example:
        Heartbeat(service="arc-sherlock-brain", status="healthy",
            metrics={"active_sessions": 3, "cpu_percent": 12.5, "memory_mb": 210})
    """

    service: Text
    status: Status
    metrics: JsonObject | None = None


class ServiceError(Payload, frozen=True, kw_only=True):
    """Something went wrong that an operator should know.

    `service` is the publishing service, the same as the envelope's; `severity` is `critical`,
    `error`, `warning` or the like; `action_required` tells the operator what to do.

    Example:
        ServiceError(service="arc-sherlock-brain", error_type="llm_unreachable",
            error_message="no connection for 60 s", severity="critical",
            action_required="check the model server")
    """

    service: Text
    error_type: Text
    error_message: str
    severity: Text
    action_required: str | None = None


CONTRACTS = (
    Contract(destination="system.health.heartbeat", payload=Heartbeat, event_type="heartbeat"),
    Contract(destination="system.service.error", payload=ServiceError, event_type="service_error"),
)
"""Ephemeral subjects of every service."""
