"""arc_store: turns, sessions, search, outbox and inbox for services on `arc_bus`.

    from arc_store import Conversation, HashingEmbedder, Store

Everything here is imported when it is first used, so that finding the plugin loads no SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from arc_bus.errors import MissingExtra
from arc_bus.hookspecs import hookimpl

if TYPE_CHECKING:
    from cyclopts import App

    from arc_bus.config import Config
    from arc_store.embedding import DIMENSIONS, Embedder, HashingEmbedder
    from arc_store.engine import Limits
    from arc_store.errors import (
        CommitUnknown,
        Conflict,
        InvalidCursor,
        InvalidField,
        LockTimeout,
        NotFound,
        PoolExhausted,
        Refused,
        RolledBack,
        SchemaMismatch,
        StatementTimeout,
        StoreClosed,
        StoreError,
        TransactionEnded,
        Unavailable,
    )
    from arc_store.models import Conversation, Session
    from arc_store.page import Page
    from arc_store.relay import RelayPolicy
    from arc_store.repositories import (
        Conversations,
        Forgotten,
        Queued,
        Sessions,
        Transaction,
    )
    from arc_store.search import Filters, Match
    from arc_store.store import Store
    from arc_store.writer import ConversationWriter

_HOMES = {
    "embedding": ("DIMENSIONS", "Embedder", "HashingEmbedder"),
    "engine": ("Limits",),
    "errors": (
        "CommitUnknown",
        "Conflict",
        "InvalidCursor",
        "InvalidField",
        "LockTimeout",
        "NotFound",
        "PoolExhausted",
        "Refused",
        "RolledBack",
        "SchemaMismatch",
        "StatementTimeout",
        "StoreClosed",
        "StoreError",
        "TransactionEnded",
        "Unavailable",
    ),
    "models": ("Conversation", "Session"),
    "page": ("Page",),
    "relay": ("RelayPolicy",),
    "repositories": ("Conversations", "Forgotten", "Queued", "Sessions", "Transaction"),
    "search": ("Filters", "Match"),
    "store": ("Store",),
    "writer": ("ConversationWriter",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DIMENSIONS",
    "CommitUnknown",
    "Conflict",
    "Conversation",
    "ConversationWriter",
    "Conversations",
    "Embedder",
    "Filters",
    "Forgotten",
    "HashingEmbedder",
    "InvalidCursor",
    "InvalidField",
    "Limits",
    "LockTimeout",
    "Match",
    "NotFound",
    "Page",
    "PoolExhausted",
    "Queued",
    "Refused",
    "RelayPolicy",
    "RolledBack",
    "SchemaMismatch",
    "Session",
    "Sessions",
    "StatementTimeout",
    "Store",
    "StoreClosed",
    "StoreError",
    "Transaction",
    "TransactionEnded",
    "Unavailable",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__):
            raise
        raise MissingExtra("store", error.name) from error


@hookimpl
def arc_configure(config: Config) -> object:
    """Make this bus's store, told by the table `[store]`; it takes the place of this module."""
    make = cast("type[Store]", __getattr__("Store"))  # so that a missing library names its extra
    from arc_store.settings import from_table

    url, settings = from_table(config.settings.get(make.plugin_name, {}))
    return make(url, **settings)


@hookimpl
def arc_commands(app: App) -> None:
    """Add `arc-bus store`."""
    from arc_store.commands import commands

    app.command(commands())
