"""What a field may hold: checks that name the field, for values that come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from arc_store.errors import InvalidField

INT_MAX = 2**31 - 1
_DEPTH = 64


def text(field: str, value: object, *, most: int | None = None, blank: bool = True) -> str:
    """Return `value` if PostgreSQL can keep it as text of at most `most` characters.

    Refused: what is no str, NUL characters, lone surrogates, and with `blank=False` white space
    only. Raises InvalidField.
    """
    if not isinstance(value, str):
        raise InvalidField(field, f"must be text, not {type(value).__name__}")
    if not blank and not value.strip():
        raise InvalidField(field, "must not be blank")
    if most is not None and len(value) > most:
        raise InvalidField(field, f"has {len(value)} characters; at most {most} are kept")
    _storable(field, value)
    return value


def _storable(field: str, value: str) -> None:
    if "\x00" in value:
        raise InvalidField(field, "has a NUL character, which PostgreSQL cannot keep; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidField(field, "has half a surrogate pair; send valid Unicode") from None


def one_of(field: str, value: object, known: Sequence[str]) -> str:
    """Return `value` if it is one of `known`. Raises InvalidField listing them."""
    if value not in known:
        raise InvalidField(field, f"{value!r} is not one of {', '.join(known)}")
    return str(value)


def count(field: str, value: object) -> int:
    """Return `value` if it is an int from 0 to 2**31 - 1. Raises InvalidField."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidField(field, f"must be a whole number, not {type(value).__name__}")
    if not 0 <= value <= INT_MAX:
        raise InvalidField(field, f"{value} is not between 0 and {INT_MAX}")
    return value


def percent(field: str, value: object) -> float:
    """Return `value` if numeric(5,2) can keep it: finite, and at most 999.99 either way."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 999.995:
        raise InvalidField(field, f"{value!r} is not a number of at most 999.99")
    return round(float(value), 2)


def moment(field: str, value: object) -> datetime:
    """Return `value` in UTC. Raises InvalidField for a datetime without a time zone."""
    if not isinstance(value, datetime):
        raise InvalidField(field, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidField(field, "has no time zone; give it one, such as datetime.UTC")
    return value.astimezone(UTC)


def json_object(field: str, value: object) -> dict[str, object]:
    """Return `value` if it is a mapping that `jsonb` can keep.

    Refused: keys that are no str, NUL characters and lone surrogates in keys or values, NaN and
    infinities, more than 64 levels, and types that JSON does not have. Raises InvalidField.
    """
    if not isinstance(value, Mapping):
        raise InvalidField(field, f"must be an object, not {type(value).__name__}")
    known = cast("Mapping[str, object]", value)
    _json(field, known, 0)
    return dict(known)


def _json(field: str, value: object, depth: int) -> None:
    if depth > _DEPTH:
        raise InvalidField(field, f"is nested deeper than {_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _storable(field, value)
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise InvalidField(field, f"has a key {key!r} that is not text")
            _storable(field, key)
            _json(field, inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[object]", value):
            _json(field, inner, depth + 1)
    elif isinstance(value, int):
        if value.bit_length() > 1024:
            raise InvalidField(field, "has a number of more than 1024 bits")
    elif not isinstance(value, float):
        raise InvalidField(field, f"has a {type(value).__name__}, which JSON does not know")
    elif not math.isfinite(value):
        raise InvalidField(field, "has NaN or an infinity, which JSON does not know")
