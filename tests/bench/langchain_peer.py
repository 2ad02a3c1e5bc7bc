"""langchain-postgres in a process of its own, because it needs an older pgvector than we compare.

Reads one JSON object a line, does what it says, and answers with the milliseconds it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from sqlalchemy.ext.asyncio import create_async_engine


class Unused(Embeddings):  # type: ignore[misc]
    """Nothing here is embedded: the vectors are given."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


async def main(url: str) -> None:
    # In this loop, where `from_connection_string` would hand every call to another thread.
    engine = PGEngine.from_engine(create_async_engine(url))
    columns: list[Any] = [
        {"name": "user_id", "data_type": "TEXT", "nullable": False},
        {"name": "turn_index", "data_type": "INTEGER", "nullable": False},
    ]
    await engine.ainit_vectorstore_table("peer", 1536, metadata_columns=columns)
    store = await PGVectorStore.create(
        engine, Unused(), "peer", metadata_columns=["user_id", "turn_index"]
    )
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        told = json.loads(line)
        begun = time.perf_counter()
        found: list[int] = []
        if told["do"] == "save":
            metadatas = [{"user_id": told["user"], "turn_index": n} for n in told["numbers"]]
            texts = [told["text"]] * len(metadatas)
            await store.aadd_embeddings(texts, told["vectors"], metadatas)
        else:
            near = await store.asimilarity_search_by_vector(
                told["vector"], k=told["k"], filter={"user_id": told["user"]}
            )
            found = [document.metadata["turn_index"] for document in near]
        took = (time.perf_counter() - begun) * 1000
        print(json.dumps({"ms": took, "found": found}), flush=True)


asyncio.run(main(sys.argv[1]))
