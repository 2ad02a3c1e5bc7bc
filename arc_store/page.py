"""Page: a part of a list, and the cursor that continues it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from arc_store.errors import InvalidCursor, InvalidField

T = TypeVar("T")
MOST = 1000


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Items, newest first, and the cursor to give as `after` for the next older ones.

    `next` is None on the last page. Rows that arrive meanwhile are newer than the first page, so
    they neither shift nor repeat anything.
    """

    items: Sequence[T]
    next: str | None = None


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a page ended: moment and id, which together no two rows share."""

    moment: datetime
    id: UUID


def encode_cursor(position: Position) -> str:
    """Return `position` as an opaque cursor."""
    plain = f"{position.moment.astimezone(UTC).isoformat()}|{position.id.hex}"
    return base64.urlsafe_b64encode(plain.encode()).decode()


def decode_cursor(cursor: str) -> Position:
    """Return what `encode_cursor` was given. Raises InvalidCursor."""
    try:
        plain = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
        moment, _, identity = plain.partition("|")
        position = Position(datetime.fromisoformat(moment), UUID(identity))
    except (binascii.Error, ValueError):
        raise InvalidCursor(f"{cursor!r} is not a cursor; give the `next` of a page") from None
    if position.moment.tzinfo is None:
        raise InvalidCursor(f"{cursor!r} is not a cursor; give the `next` of a page")
    return position


def check_limit(limit: int) -> int:
    """Return `limit` if it is from 1 to 1000. Raises InvalidField."""
    if not 1 <= limit <= MOST:
        raise InvalidField("limit", f"{limit} is not between 1 and {MOST}")
    return limit
