"""Base: what the models share: column types, checks, and the way to JSON and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar, Self, cast
from uuid import UUID

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    func,
    inspect,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass
from sqlalchemy.types import TypeDecorator

from arc_bus.envelope import new_message_id
from arc_store.embedding import DIMENSIONS, Embedding
from arc_store.errors import InvalidField

SCHEMA = "agents"

JsonObject = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """`timestamptz`; the same moment in UTC on SQLite, which forgets time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Send UTC."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """The base of the models: typed constructors, no equality by value, the schema `agents`."""

    metadata = MetaData(schema=SCHEMA)
    json_forms: ClassVar[Mapping[str, Callable[[str, object], object]]] = {}
    bulky: ClassVar[frozenset[str]] = frozenset()

    def values(self) -> dict[str, Any]:
        """Return column name -> Python value for every column but `updated_at`."""
        stored: Mapping[str, Any] = self.__dict__
        return {
            name: stored.get(name, default) for name, default in defaults_of(type(self)).items()
        }

    def dump(self, *, bulky: bool = True) -> dict[str, object]:
        """Return what JSON can carry; without the vector unless `bulky`."""
        return {
            column.name: to_json(getattr(self, column.name))
            for column in self.__table__.columns
            if bulky or column.name not in self.bulky
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """Return what `to_dict` was called on; unknown names and `updated_at` are ignored.

        Raises InvalidField for a missing field and for values that the contracts refuse.
        """
        known: dict[str, Any] = {}
        for name in written_columns(cls):
            value = data.get(name)
            if value is not None:
                form = cls.json_forms.get(name)
                known[name] = form(name, value) if form else value
        for name in required_columns(cls):
            if name not in known:
                raise InvalidField(name, "is missing")
        return cls(**known)


@cache
def defaults_of(model: type[Base]) -> dict[str, Any]:
    """Return what each written column is where an instance was not told."""
    blank = inspect(model).class_manager.new_instance()
    return {name: getattr(blank, name) for name in written_columns(model)}


@cache
def written_columns(model: type[Base]) -> tuple[str, ...]:
    """Return the columns that a writer sets: all but `updated_at`, which is the database's."""
    return tuple(column.name for column in model.__table__.columns if column.name != "updated_at")


@cache
def required_columns(model: type[Base]) -> tuple[str, ...]:
    """Return the columns that have neither a default nor NULL."""
    return tuple(
        column.name
        for column in model.__table__.columns
        if not column.nullable and column.server_default is None and column.name != "id"
    )


def new_id() -> UUID:
    """Return a UUIDv7: rows that are made one after another lie near each other in the index."""
    return UUID(new_message_id())


def utc_moment() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


def to_json(value: object) -> object:
    """Return a column's value as JSON has it: UUIDs and moments as text."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


def to_uuid(field: str, value: object) -> UUID:
    """Return `value` as a UUID. Raises InvalidField."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        raise InvalidField(field, f"{value!r} is not a UUID") from None


def to_moment(field: str, value: object) -> object:
    """Return RFC 3339 text as a datetime, anything else as it is. Raises InvalidField."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise InvalidField(field, f"{value!r} is not an RFC 3339 time") from None


def at_least_zero(table: str, *columns: str) -> list[CheckConstraint]:
    """Return a CHECK for each column; NULL passes, as in every CHECK."""
    return [CheckConstraint(f"{name} >= 0", name=f"ck_{table}_{name}") for name in columns]


def by_dialect(table: str, column: str, forms: Mapping[str, str]) -> list[CheckConstraint]:
    """Return the CHECK of a column in the form of each dialect."""
    return [
        CheckConstraint(form.format(column), name=f"ck_{table}_{column}").ddl_if(dialect=dialect)
        for dialect, form in forms.items()
    ]


def not_blank(table: str, *columns: str) -> list[CheckConstraint]:
    """Return a CHECK for each column that refuses text of ASCII white space only."""
    forms = {
        "postgresql": "btrim({}, E' \\t\\n\\r\\f\\x0b') <> ''",
        "sqlite": "trim({}, ' ' || char(9, 10, 11, 12, 13)) <> ''",
    }
    return [check for name in columns for check in by_dialect(table, name, forms)]


def direction(table: str, column: str) -> list[CheckConstraint]:
    """Return the CHECK that a vector has a cosine distance, with the limits of `to_floats`.

    SQLite minds zeros only, for its SQL cannot look into a blob.
    """
    forms = {
        "postgresql": "vector_norm({}) BETWEEN 1e-15 AND 1e15",
        "sqlite": f"{{}} <> zeroblob({4 * DIMENSIONS})",
    }
    return by_dialect(table, column, forms)


def known_values(table: str, column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Return a CHECK that the column is one of `values`."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"ck_{table}_{column}")


_LITE_TYPES: Mapping[type[Any], str] = {
    String: "length({0}) <= {1} AND instr({0}, char(0)) = 0",
    Text: "instr({0}, char(0)) = 0",
    Integer: "typeof({0}) IN ('integer', 'null') AND {0} BETWEEN -2147483648 AND 2147483647",
    Numeric: "typeof({0}) IN ('integer', 'real', 'null') AND abs({0}) < 999.995",
    Uuid: "length({0}) = 32 AND {0} NOT GLOB '*[^0-9a-f]*'",
    UtcDateTime: "{0} IS NULL OR julianday({0}) IS NOT NULL",
    JSON: "{0} IS NULL OR json_valid({0})",
    Embedding: f"{{0}} IS NULL OR typeof({{0}}) = 'blob' AND length({{0}}) = {4 * DIMENSIONS}",
}


def mind_types(model: type[Base]) -> None:
    """Add the CHECKs by which SQLite minds what types mean, as PostgreSQL does by itself.

    Its columns take anything: text of any length, with NUL, in a column of integers.
    """
    table = cast("Table", model.__table__)
    for column in table.columns:
        form = _LITE_TYPES[type(column.type)]
        rule = form.format(column.name, getattr(column.type, "length", None))
        check = CheckConstraint(rule, name=f"ck_{table.name}_{column.name}_type")
        table.append_constraint(check.ddl_if(dialect="sqlite"))


def index(table: str, *columns: str) -> Index:
    """Return the index `ix_<table>_<columns>`; a column may be written `name desc`."""
    name = "_".join(column.split()[0] for column in columns)
    parts = [text(column) if " " in column else column for column in columns]
    return Index(f"ix_{table}_{name}", *parts)


moment_default = func.now()
