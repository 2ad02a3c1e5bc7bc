"""Similarity: cosine distance and word overlap where no pgvector is there to compute them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import mul


def distances(query: Sequence[float], vectors: Sequence[Sequence[float]]) -> list[float]:
    """Return the cosine distance of `query` to each of `vectors`, from 0 to 2.

    In pure Python: 0.1 ms for each vector of 1536 dimensions, so good to some thousand rows.
    """
    length = math.hypot(*query)
    return [
        1.0 - sum(map(mul, query, vector)) / (length * math.hypot(*vector)) for vector in vectors
    ]


def words(text: str) -> set[str]:
    """Return the different words of `text` in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def overlap(query: set[str], text: str) -> int:
    """Return how many of the words of `query` are in `text`."""
    return len(query & words(text))
