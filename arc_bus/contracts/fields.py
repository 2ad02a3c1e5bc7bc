"""The kinds of value that contract fields have, and how a constant field is declared."""

from __future__ import annotations

from typing import Annotated, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Text: TypeAlias = Annotated[str, Meta(min_length=1)]
"""Text that says something: never empty."""

Count: TypeAlias = Annotated[int, Meta(ge=0)]
"""How many: a whole number, never negative."""

Amount: TypeAlias = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
"""How much, never negative. A whole number stays one, so that Go reads `45` and not `45.0`."""

Percent: TypeAlias = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
"""A share in percent, 0 to 100."""

Fraction: TypeAlias = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]
"""A share of one, 0 to 1."""

Moment: TypeAlias = Annotated[
    str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
]
"""A date and time by RFC 3339, kept as the text it came as."""

JsonObject: TypeAlias = dict[str, object]
"""An object whose fields this platform does not fix; everything in it is kept."""


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every payload, and of every group of fields in one.

    On the wire an optional field that is None is left out. Unknown fields are ignored when
    reading, so that a newer publisher never breaks an older reader.
    """


class Constant(Generic[T]):
    """Makes the default of a field declared with `always`, and tells schemas what it is."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __call__(self) -> T:
        """Return the value."""
        return self.value


def always(value: T) -> T:
    """Declare a field's default that is written even when unchanged: readers rely on the field.

    `omit_defaults` leaves out what equals a plain default; what a factory makes it does not know.
    """
    field: T = msgspec.field(default_factory=Constant(value))
    return field
