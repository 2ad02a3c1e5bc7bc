"""Stored: what the run has left in the database and in the audit export, counted there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from arc_bus.servers import PostgresServer, ServerError
from stage.accounts import Loss

_QUERY = """
SELECT (SELECT count(*) FROM agents.conversations WHERE embedding IS NOT NULL),
       (SELECT count(*) FROM agents.sessions WHERE status = 'ended'),
       (SELECT coalesce(sum(total_turns), 0) FROM agents.sessions),
       (SELECT coalesce(sum((context_used->>'previous_turn_count')::int), 0)
          FROM agents.conversations)
"""


class Stored(msgspec.Struct, frozen=True):
    """What is there; `error` says why the database could not be read.

    `turns` and `sessions` are rows, with a vector and ended; `turns_of_sessions` what the sessions
    say of their turns; `similar` how many earlier turns the brain was given in all; `audit` the
    distinct messages in the export.
    """

    turns: int = 0
    sessions: int = 0
    turns_of_sessions: int = 0
    similar: int = 0
    audit: int = 0
    error: str = ""

    def losses(self, published: Mapping[str, int], database: str) -> list[Loss]:
        """Return what is missing of what was published, by destination, and is to be stored."""
        turns = published["persistent://arc/events/conversations"]
        sessions = published["persistent://arc/analytics/session-metrics"]
        audit = sum(published[f"persistent://arc/audit/{n}"] for n in ("logs", "compliance-events"))
        found = [
            (database, "agents.conversations", turns - self.turns, "rows with a vector"),
            (database, "agents.sessions", sessions - self.sessions, "rows of ended sessions"),
            (database, "agents.sessions", turns - self.turns_of_sessions, "turns counted"),
            ("audit export", "audit.*.jsonl", audit - self.audit, "entries"),
        ]
        why = f"; the database does not answer: {self.error}" if self.error else ""
        return [
            Loss(route, where, missing, f"{what} are missing{why}")
            for route, where, missing, what in found
            if missing > 0
        ]


def count_stored(postgres: PostgresServer, folder: Path) -> Stored:
    """Return what is there now. Blocks for a round trip to the database."""
    audit: set[str] = set()
    for path in folder.glob("audit.*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        audit.update(json.loads(line)["message_id"] for line in lines)
    try:
        answer = postgres.psql(_QUERY, "arc")
    except ServerError as error:
        return Stored(audit=len(audit), error=str(error))
    turns, sessions, counted, similar = map(int, answer.split("|"))
    return Stored(turns, sessions, counted, similar, len(audit))
