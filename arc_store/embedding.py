"""Embedding: vectors on their way to the database and back, and what makes them."""

from __future__ import annotations

import math
import re
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Protocol, cast

import msgspec
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import UserDefinedType

from arc_store.errors import InvalidField

DIMENSIONS = 1536
"""The size of every embedding (contracts, `embedding vector(1536)`)."""

_SHORTEST, _LONGEST = 1e-15, 1e15
_wire = struct.Struct(f">HH{DIMENSIONS}f")
_parse = msgspec.json.Decoder(list[float]).decode


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def model(self) -> str:
        """The name kept beside every vector: vectors of two models are never compared."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of its vectors: 1536, or the store refuses it at start."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one vector for each text, in the same order."""
        ...


class HashingEmbedder:
    """Feature hashing of words and word pairs to 1536 dimensions: a stand-in for a model.

    It knows spelling, not meaning: texts that share words are near each other, synonyms are not.
    Good for tests and demos, because it needs no model and always says the same; nothing else.
    Each feature adds +1 or -1 to one dimension, both chosen by its hash (Weinberger et al., 2009,
    "Feature Hashing for Large Scale Multitask Learning"); vectors have length 1.
    """

    model = "feature-hashing-1536"
    dimensions = DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one unit vector for each text; a text without words gets a fixed vector."""
        return [_hashed(text) for text in texts]


def _hashed(text: str) -> list[float]:
    words: list[str] = re.findall(r"\w+", text.lower())
    vector = [0.0] * DIMENSIONS
    features = [*words, *(f"{one} {two}" for one, two in pairwise(words))]
    for feature in features or [""]:
        number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
        vector[number % DIMENSIONS] += 1.0 if number >> 63 else -1.0
    length = math.hypot(*vector)
    if not length:  # two features met in one dimension and cancelled out
        vector[0] = length = 1.0
    return [value / length for value in vector]


def to_floats(field: str, value: object) -> Sequence[float]:
    """Return `value` as a list or tuple of 1536 numbers that have a direction.

    Takes any sequence of numbers, and anything with a buffer of C floats or doubles (numpy
    arrays, `array.array`). Raises InvalidField for another length, NaN, infinities, and vectors
    so short or so long (zero among them) that their cosine distance is NaN in single precision.
    """
    numbers = _numbers(field, value)
    if len(numbers) != DIMENSIONS:
        raise InvalidField(field, f"has {len(numbers)} dimensions instead of {DIMENSIONS}")
    try:
        length = math.hypot(*numbers)
    except (TypeError, OverflowError):
        raise InvalidField(field, "holds something that is not a number") from None
    if math.isnan(length) or math.isinf(length):
        raise InvalidField(field, "holds NaN or an infinity")
    if not _SHORTEST < length < _LONGEST:
        raise InvalidField(
            field, f"has length {length:g}; a zero, tiny or huge vector has no cosine distance"
        )
    return numbers


def _numbers(field: str, value: object) -> Sequence[float]:
    if isinstance(value, list | tuple):
        return cast("Sequence[float]", value)
    try:
        view = memoryview(cast("bytes", value))
    except TypeError:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return list(cast("Sequence[float]", value))
        raise InvalidField(field, f"must be numbers, not {type(value).__name__}") from None
    if view.format not in ("f", "d") or view.ndim != 1:
        raise InvalidField(field, "must be one row of C floats or doubles")
    return cast("list[float]", view.tolist())


def to_blob(value: Sequence[float]) -> bytes:
    """Return `value` as little-endian C floats, as SQLite keeps it."""
    numbers = array("f", value)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def from_blob(blob: bytes) -> list[float]:
    """Return what `to_blob` was given, in single precision."""
    numbers = array("f")
    numbers.frombytes(blob)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


class Binary:
    """A vector in pgvector's binary form, for psycopg to tell it from other bytes."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _to_wire(value: Sequence[float]) -> bytes:
    return _wire.pack(DIMENSIONS, 0, *value)


def _from_wire(data: bytes) -> list[float]:
    return list(_wire.unpack(data)[2:])


class _Bind(Protocol):
    def __call__(self, value: Sequence[float] | None) -> object: ...


class _Result(Protocol):
    def __call__(self, value: Any) -> Sequence[float] | None: ...


class Embedding(UserDefinedType[Sequence[float]]):
    """`vector(1536)` sent in binary: 0.1 ms a row where text takes 1.2; a blob on SQLite.

    The engine must be one of `make_engine` (arc_store/engine.py), which prepares its connections.
    Reads give lists of floats in single precision.
    """

    cache_ok = True

    def get_col_spec(self, **_kw: object) -> str:
        """Return the column's type in PostgreSQL."""
        return f"VECTOR({DIMENSIONS})"

    def bind_processor(self, dialect: Dialect) -> _Bind:
        """Return what turns a vector into the driver's parameter."""
        send: Callable[[Sequence[float]], object] = (
            to_blob
            if dialect.name == "sqlite"
            else _to_wire
            if dialect.driver == "asyncpg"
            else lambda value: Binary(_to_wire(value))
        )

        def bind(value: Sequence[float] | None) -> object:
            return None if value is None else send(value)

        return bind

    def result_processor(self, dialect: Dialect, coltype: object) -> _Result:
        """Return what turns the driver's value into a list of floats."""
        read: Callable[[Any], Sequence[float]] = (
            from_blob
            if dialect.name == "sqlite"
            else _from_wire
            if dialect.driver == "asyncpg"
            # SQLAlchemy's psycopg cursors read text: "[0.1,0.2]", which happens to be JSON.
            else _parse
        )

        def result(value: Any) -> Sequence[float] | None:
            return None if value is None else read(value)

        return result


class Embeddings(msgspec.Struct, frozen=True):
    """The vectors of many rows as one parameter; `oid` is that of `vector` in their database."""

    vectors: Sequence[Sequence[float] | None]
    oid: int


_array_head = struct.Struct(">5i")
_item_head = struct.Struct(">i")


def _array_to_wire(value: Embeddings) -> Binary:
    """Return an array in PostgreSQL's binary form (array_recv in its source)."""
    holes = any(vector is None for vector in value.vectors)
    parts = [_array_head.pack(1, holes, value.oid, len(value.vectors), 1)]
    for vector in value.vectors:
        if vector is None:
            parts.append(_item_head.pack(-1))
        else:
            parts += (_item_head.pack(_wire.size), _to_wire(vector))
    return Binary(b"".join(parts))


class _BindMany(Protocol):
    def __call__(self, value: Embeddings | None) -> object: ...


class EmbeddingArray(UserDefinedType[Embeddings]):
    """`vector[]`, as a parameter only."""

    cache_ok = True

    def get_col_spec(self, **_kw: object) -> str:
        """Return the type in PostgreSQL."""
        return "VECTOR[]"

    def bind_processor(self, dialect: Dialect) -> _BindMany:
        """Return what turns the vectors into the driver's parameter."""
        by_asyncpg = dialect.driver == "asyncpg"

        def bind(value: Embeddings | None) -> object:
            if value is None or not by_asyncpg:
                return None if value is None else _array_to_wire(value)
            return [None if one is None else _to_wire(one) for one in value.vectors]

        return bind


@compiles(Embedding, "sqlite")
def _blob(_element: object, _compiler: object, **_kw: object) -> str:
    return "BLOB"
