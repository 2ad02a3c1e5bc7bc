"""Stored: what the run has left in the database and in the audit export, counted there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from arc_bus.servers import PostgresServer, ServerError
from stage.accounts import Line, Loss

_KINDS = {
    "persistent://arc/events/conversations": "turns",
    "persistent://arc/analytics/session-metrics": "ends",
    "persistent://arc/audit/logs": "audit",
    "persistent://arc/audit/compliance-events": "audit",
}
"""What a message of these topics leaves in the database or in the export."""

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

    def losses(self, lines: Iterable[Line], database: str) -> list[Loss]:
        """Return what is missing of what was published, by destination, and is to be stored.

        What no handler was given is a loss of the route it went by; here it is a knock-on.
        """
        published, given = Counter[str](), Counter[str]()
        for line in lines:
            kind = _KINDS.get(line.destination, "")
            published[kind] += line.published
            given[kind] += min(line.delivered.values(), default=0)
        # The end of a session may be what counts its turns: see `keep_turn` of the pipeline.
        countable = given["turns"] if given["ends"] == published["ends"] else 0
        turns, sessions, export = "agents.conversations", "agents.sessions", "audit.*.jsonl"
        found = [
            (turns, "rows with a vector", "turns", given["turns"], self.turns),
            (sessions, "rows of ended sessions", "ends", given["ends"], self.sessions),
            (sessions, "turns counted", "turns", countable, self.turns_of_sessions),
            (export, "entries", "audit", given["audit"], self.audit),
        ]
        why = f"; the database does not answer: {self.error}" if self.error else ""
        losses = list[Loss]()
        for where, what, kind, possible, there in found:
            route = "audit export" if where == export else database
            lost = max(possible - there, 0)
            never_came = max(published[kind] - max(possible, there), 0)
            for count, knock_on in ((lost, False), (never_came, True)):
                if count:
                    losses.append(Loss(route, where, count, f"{what} are missing{why}", knock_on))
        return losses


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
