"""The stand-in embedder, and vectors on their way to a database and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_store import Conversation, HashingEmbedder, Store
from arc_store.embedding import DIMENSIONS, from_blob, to_blob, to_floats
from arc_store.similarity import distances


def distance(one: list[float], other: list[float]) -> float:
    return distances(one, [other])[0]


@given(st.text())
async def test_any_text_becomes_a_unit_vector(text: str) -> None:
    [vector] = await HashingEmbedder().embed([text])
    assert len(to_floats("embedding", vector)) == DIMENSIONS
    assert math.hypot(*vector) == pytest.approx(1.0)


async def test_texts_that_share_words_are_nearer_and_the_same_text_is_the_same() -> None:
    embedder = HashingEmbedder()
    one, near, far, again = await embedder.embed(
        [
            "what is the weather like today",
            "What's the weather today?",
            "please book a table for two",
            "what is the weather like today",
        ]
    )
    assert one == again
    assert distance(one, near) < 0.7 < distance(one, far)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3))
def test_a_blob_is_single_precision_and_little_endian(values: list[float]) -> None:
    assert from_blob(to_blob(values)) == values
    assert to_blob(values) == struct.pack("<3f", *values)


async def test_a_vector_comes_back_in_single_precision(
    store: Store, turn: Callable[..., Conversation]
) -> None:
    vector = [math.sin(number) for number in range(DIMENSIONS)]
    saved = turn(embedding=vector)
    await store.conversations.save(saved)
    found = await store.conversations.get(saved.id, embedding=True)
    assert found is not None
    assert found.embedding is not None
    assert list(found.embedding) == pytest.approx(vector, rel=1e-6, abs=1e-9)
