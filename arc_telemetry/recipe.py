"""Recipe: what every span of one operation on one destination has in common."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import AnyValue


class Recipe:
    """A name, a kind and attributes, shared by many spans. `encoded` is the encoder's to fill."""

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, AnyValue]) -> None:
        """Freeze the attributes."""
        self.name = name
        self.kind = kind
        self.attributes: Mapping[str, AnyValue] = MappingProxyType(dict(attributes))
        self.encoded: bytes | None = None
