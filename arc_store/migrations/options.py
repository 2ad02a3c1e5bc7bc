"""Options: what Alembic is to look at, and what to leave alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from arc_store.base import SCHEMA, Base
from arc_store.embedding import DIMENSIONS, Embedding
from arc_store.inbox import INBOX
from arc_store.models import Conversation, Session
from arc_store.outbox import OUTBOX

HNSW = "ix_conversations_embedding"
"""How the names of approximate indexes begin: they come and go by `set_index`."""

_TABLES = {Conversation.__tablename__, Session.__tablename__, OUTBOX.name, INBOX.name}


class _Vector(UserDefinedType[Any]):
    """`vector(n)` as it is read from the database."""

    cache_ok = True

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions

    def get_col_spec(self, **_kw: object) -> str:
        return f"VECTOR({self.dimensions})"


def for_context() -> dict[str, Any]:
    """Return Alembic's options: our tables in our schema, with our own table of versions."""
    known: dict[str, Any] = ischema_names
    known.setdefault("vector", _Vector)
    return {
        "target_metadata": Base.metadata,
        "version_table": "alembic_version_arc_store",
        "version_table_schema": SCHEMA,
        "include_schemas": True,
        "include_name": _is_ours,
        "include_object": _is_compared,
        "compare_type": _differs,
        "transaction_per_migration": False,
    }


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    if kind == "schema":
        return name == SCHEMA
    if kind == "table":
        return parents.get("schema_name") == SCHEMA and name in _TABLES
    return True


def _is_compared(_item: object, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Leave out approximate indexes, SQLite's key, and indexes that somebody else has added."""
    if kind != "index" or name is None:
        return True
    return not (name.startswith(HNSW) or name.endswith("_sqlite") or (reflected and _other is None))


def _differs(
    _context: object, _column: object, _metadata_column: object, there: object, ours: object
) -> bool | None:
    """Compare vectors by their size; None leaves other types to Alembic."""
    if isinstance(ours, Embedding):
        return getattr(there, "dimensions", getattr(there, "dim", None)) != DIMENSIONS
    return None
