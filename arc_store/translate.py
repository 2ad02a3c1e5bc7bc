"""Translate: SQLAlchemy's and the drivers' exceptions become ours, and say no user's words."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import exc

from arc_store.errors import (
    Conflict,
    InvalidField,
    LockTimeout,
    PoolExhausted,
    Refused,
    SchemaMismatch,
    StatementTimeout,
    StoreError,
    Unavailable,
)

UPGRADE = "mend it with: arc-bus store upgrade --url <database>"

# SQLSTATE codes and classes: PostgreSQL manual, appendix A.
_BY_STATE: dict[str, type[StoreError]] = {
    "57014": StatementTimeout,
    "55P03": LockTimeout,
    "40P01": LockTimeout,
    "40001": LockTimeout,
    "23505": Conflict,
    "23503": Conflict,
    "3F000": SchemaMismatch,
    "42P01": SchemaMismatch,
    "42703": SchemaMismatch,
    "42704": SchemaMismatch,
    "42883": SchemaMismatch,
    "3D000": SchemaMismatch,
}
_BY_CLASS: dict[str, type[StoreError]] = {
    "08": Unavailable,  # connection exception
    "53": Unavailable,  # out of connections, memory or disk
    "57": Unavailable,  # server shutting down
    "58": Unavailable,  # its disk failed
}
_CONSTRAINT = re.compile(r"ck_(?:conversations|sessions)_(\w+?)(?:_type)?\b")
_NOT_NULL = re.compile(r"null value in column \"(\w+)\"|NOT NULL constraint failed: \w+\.(\w+)")


@contextmanager
def translated() -> Generator[None]:
    """Turn whatever a database library raises inside the block into a StoreError.

    An error about a row's values is raised without the original behind it, because PostgreSQL
    quotes the whole row there.
    """
    try:
        yield
    except exc.TimeoutError:
        raise PoolExhausted(
            "no connection became free in time; raise pool_size, or hold transactions for less long"
        ) from None
    except exc.DBAPIError as error:
        meant = _meaning(error)
        hide = isinstance(meant, InvalidField | Conflict)
        raise meant from (None if hide else error)
    except exc.SQLAlchemyError as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"the database cannot be reached: {error}") from error


def _meaning(error: exc.DBAPIError) -> StoreError:
    original = error.orig or error
    state = str(getattr(original, "sqlstate", None) or "")
    said = str(original).partition("\n")[0]
    if state.startswith(("22", "23")):
        return _row_error(state, said)
    if state:
        kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2], Refused)
        remedy = f"; {UPGRADE}" if kind is SchemaMismatch else ""
        return kind(f"{said} (SQLSTATE {state}){remedy}")
    if error.connection_invalidated or isinstance(error, exc.InterfaceError | exc.InternalError):
        return Unavailable(f"the connection broke: {said}")
    if isinstance(error, exc.IntegrityError):
        return _row_error("", said)
    if "no such table" in said or "no such column" in said:
        return SchemaMismatch(f"{said}; give the store an empty file, or one of this version")
    if "locked" in said:
        return LockTimeout(said)
    if isinstance(error, exc.DataError):
        return InvalidField("value", said)
    if isinstance(error, exc.OperationalError):
        return Unavailable(f"the database cannot be reached: {said}")
    return Refused(said)


def _row_error(state: str, said: str) -> StoreError:
    check = _CONSTRAINT.search(said)
    if check:
        return InvalidField(check[1], "breaks the database's rule for this column")
    missing = _NOT_NULL.search(said)
    if missing:
        return InvalidField(missing[1] or missing[2], "must not be NULL")
    if state in ("23505", "23503") or "UNIQUE constraint" in said:
        return Conflict(f"a row with that id or key is there already: {said}")
    return InvalidField("value", said)
