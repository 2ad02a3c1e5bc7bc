"""Settings: what a store is told beside its URL, by keywords or by `[store]` in `arc.toml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

import msgspec

from arc_bus.errors import ConfigError, of_options
from arc_store.embedding import Embedder
from arc_store.engine import Limits
from arc_store.relay import RelayPolicy


class StoreSettings(TypedDict, total=False):
    """The further keywords of `Store`.

    `embedder` makes vectors of texts, and its model's name is kept with every vector. `limits` say
    how the database is used, `relay` how the outbox is relayed (None: another process does it).
    `migrate` upgrades the schema at start. `keep_inbox` is how long a handled message is remembered
    (default 7 days): longer than any broker redelivers or anybody replays dead letters. `keep_dead`
    is how long dead outbox messages are kept (30 days).
    """

    embedder: Embedder | None
    limits: Limits
    relay: RelayPolicy | None
    migrate: bool
    keep_inbox: timedelta
    keep_dead: timedelta


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    url: str = msgspec.field(default_factory=lambda: os.environ.get("ARC_STORE_URL", ""))
    limits: Limits = Limits()
    relay: bool = True
    migrate: bool = False
    keep_inbox_days: float = 7.0
    keep_dead_days: float = 30.0


def from_table(table: Mapping[str, Any]) -> tuple[str, StoreSettings]:
    """Return URL and settings of a configuration table; the URL is else that of `ARC_STORE_URL`.

    Its keys: `url`, `limits` (a table), `relay` (whether), `migrate`, `keep_inbox_days`,
    `keep_dead_days`. An embedder is an object, so a store that has one is given as one. Raises
    ConfigError naming key and value.
    """
    try:
        told = msgspec.convert(table, _Table, strict=False)
    except msgspec.ValidationError as error:
        said = of_options(error, _Table.__struct_fields__)
        raise ConfigError(f"settings of store: {said}") from error
    if not told.url:
        raise ConfigError(
            'plugins=["store"] does not say which database: set url in [store] or ARC_STORE_URL, or'
            ' give the object itself: Bus(plugins=[Store("postgresql+psycopg://localhost/arc")])'
        )
    return told.url, StoreSettings(
        limits=told.limits,
        relay=RelayPolicy() if told.relay else None,
        migrate=told.migrate,
        keep_inbox=timedelta(days=told.keep_inbox_days),
        keep_dead=timedelta(days=told.keep_dead_days),
    )
