"""What `bus.health()` and `arc-bus doctor` say about telemetry."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from arc_bus.check import Check
from arc_bus.secret import redact
from arc_telemetry import names
from arc_telemetry.metrics import Registry

REACH = 1.0
"""Seconds that the doctor waits for a connection to the collector."""


class LossCheck:
    """Tells whether telemetry was lost since it was last asked. Losing some harms no message."""

    def __init__(self, registry: Registry) -> None:
        """Look at `registry`."""
        self._lost = registry.counter(names.ARC_TELEMETRY_LOST, "{item}")
        self._before = 0.0

    async def check(self) -> Check:
        """Return the losses, by signal and reason."""
        cells = {labels: cell.read() for labels, cell in list(self._lost.cells.items())}
        total = sum(cells.values())
        new, self._before = total - self._before, total
        told = ", ".join(
            f"{' '.join(str(value) for _, value in labels)}: {count:.0f}"
            for labels, count in sorted(cells.items())
        )
        return Check(
            name="telemetry",
            ok=new == 0,
            detail=f"lost since the last check: {new:.0f}; in all: {told or 0}",
            remedy=""
            if new == 0
            else "see whether the collector is up, and OTEL_BSP_* large enough",
        )


def reach_collector(given: str | None) -> Check:
    """Open and close a connection to where traces go."""
    endpoint = (
        given
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or names.DEFAULT_ENDPOINT
    )
    shown = redact(endpoint)
    remedy = "start a collector there, set OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_SDK_DISABLED=true"
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        with socket.create_connection((parts.hostname or "", parts.port or 4317), REACH):
            return Check(
                name="telemetry", ok=True, detail=f"collector at {shown} accepts connections"
            )
    except (OSError, ValueError) as error:
        detail = f"collector at {shown} cannot be reached: {error}"
        return Check(name="telemetry", ok=False, detail=detail, remedy=remedy)
