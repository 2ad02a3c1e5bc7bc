"""Everything `arc_store` raises on purpose.

ArcBusError
└── StoreError
    ├── InvalidField         a value that the contracts refuse; also a PayloadError
    ├── InvalidCursor        a page cursor that no page gave out
    ├── NotFound             the row to change is not there
    ├── Conflict             another row already has that id or key
    ├── SchemaMismatch       the database is not what this version needs (also a ConfigError)
    ├── StoreClosed          the store is not open: not entered yet, or left
    ├── TransactionEnded     a transaction used after its block
    ├── Refused              the database refuses the statement: rights, disk full, syntax
    │   └── RolledBack       a transaction could not be committed, because a part of it had failed
    └── Unavailable          trying again may help
        ├── PoolExhausted    no connection became free in time
        ├── StatementTimeout the database gave up after `statement_timeout`
        ├── LockTimeout      a row was locked by someone else for too long, or a deadlock
        └── CommitUnknown    COMMIT was sent and no answer came: the rows may or may not be there
"""

from __future__ import annotations

from arc_bus.errors import ArcBusError, ConfigError, PayloadError


class StoreError(ArcBusError):
    """The root of every error that `arc_store` raises on purpose."""


class InvalidField(StoreError, PayloadError):
    """A value that the contracts refuse. `field` names it; sending it again will not help."""

    def __init__(self, field: str, reason: str) -> None:
        """Say which `field` and why, without repeating what a user said."""
        super().__init__(f"{field}: {reason}")
        self.field = field


class InvalidCursor(StoreError):
    """A cursor that did not come from `Page.next` of the same kind of page."""


class NotFound(StoreError):
    """The row to change is not there."""


class Conflict(StoreError):
    """Another row already has that id or key, or a rule between rows is broken."""


class SchemaMismatch(StoreError, ConfigError):
    """The database's schema, extension or vector size is not what this version needs."""


class StoreClosed(StoreError):
    """The store is not open: `async with store` was not entered yet, or was left."""


class TransactionEnded(StoreError):
    """A transaction was used after its `async with` block had ended."""


class Refused(StoreError):
    """The database refused the statement; trying the same again will not help."""


class RolledBack(Refused):
    """A part of the transaction had failed, so that all of it was rolled back at its end."""


def rolled_back(failure: BaseException) -> RolledBack:
    """Return the error of a block that went on after `failure`, as if it could be committed."""
    return RolledBack(f"all was rolled back, because a statement in it had failed: {failure}")


class Unavailable(StoreError):
    """The database cannot be reached or broke off; trying again may help."""


class PoolExhausted(Unavailable):
    """Every connection of the pool was in use for longer than `pool_timeout`."""


class StatementTimeout(Unavailable):
    """The database gave up on a statement that ran longer than `statement_timeout`."""


class LockTimeout(Unavailable):
    """Somebody else held a lock for longer than `lock_timeout`, or two waited for each other."""


class CommitUnknown(Unavailable):
    """COMMIT was sent and no answer came: the transaction did happen, or did not.

    Do the same again: turns and sessions are upserts on their natural keys, `once` finds the
    message's id if the commit had happened, and a relayed message keeps its id.
    """
