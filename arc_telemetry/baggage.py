"""W3C Baggage in message headers: off unless asked for, because it may hold what users said."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from arc_telemetry.names import BAGGAGE
from arc_telemetry.propagation import header


class Baggage:
    """Writes the current baggage into headers, and reads it back."""

    def __init__(self) -> None:
        self._propagator = W3CBaggagePropagator()

    def inject(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return `headers` with the current baggage; themselves if there is none."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return {**headers, **carrier} if carrier else headers

    def extract(self, headers: Mapping[str, str], into: Context) -> Context:
        """Return `into` with the baggage that `headers` bring."""
        value = header(headers, BAGGAGE)
        return self._propagator.extract({BAGGAGE: value}, into) if value else into
