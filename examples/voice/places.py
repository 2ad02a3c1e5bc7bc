"""Where the brokers, the database and this run's files are; on localhost unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arc_store import Store


def routes(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return destination prefix -> URL: what is spoken over NATS, and what is kept by Pulsar.

    Dead letters of NATS subjects go to JetStream, for core NATS itself keeps nothing; those of
    Pulsar topics stay with Pulsar.
    """
    nats = environment.get("VOICE_NATS", "localhost:4222")
    pulsar = environment.get("VOICE_PULSAR", "localhost:6650")
    return {
        "agent.": f"nats://{nats}",
        "system.": f"nats://{nats}",
        "dead.": f"nats+jetstream://{nats}/ARC_DEAD",
        "persistent://arc/": f"pulsar://{pulsar}?send_timeout=5",
    }


def store() -> Store:
    """Return the platform's store, not connected yet."""
    from arc_store import HashingEmbedder, Store  # not every service has use for a database

    url = os.environ.get("VOICE_DATABASE", "postgresql+psycopg://localhost/arc")
    return Store(url, embedder=HashingEmbedder())


def folder() -> Path:
    """Return where a service leaves files: its ledger, the audit export, piper's lexicon."""
    return Path(os.environ.get("VOICE_FOLDER", "."))
