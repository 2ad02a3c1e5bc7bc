"""What is missing in the database is laid to the database only if a handler was given it."""

from __future__ import annotations

import pytest

from stage.accounts import Line, Loss
from stage.stored import Stored

DATABASE = "postgresql://here"
TURNS = "persistent://arc/events/conversations"
ENDS = "persistent://arc/analytics/session-metrics"
AUDIT = "persistent://arc/audit/logs"
WHOLE = Stored(turns=4, sessions=2, turns_of_sessions=4, audit=6)


def lines(turns: int = 4, ends: int = 2, audit: int = 6) -> list[Line]:
    """Return lines of 4 turns, 2 ends and 6 audit entries, of which so many were delivered."""
    given = ((TURNS, 4, turns), (ENDS, 2, ends), (AUDIT, 6, audit))
    return [Line(name, "pulsar://", n, n, n, {"pipeline": got}) for name, n, got in given]


def losses(stored: Stored, came: list[Line]) -> list[tuple[str, str, int, bool]]:
    found = stored.losses(came, DATABASE)
    return [(loss.route, loss.where, loss.count, loss.knock_on) for loss in found]


def test_nothing_is_missing_when_all_that_was_published_is_there() -> None:
    assert WHOLE.losses(lines(), DATABASE) == []


def test_a_row_that_a_handler_was_given_is_a_loss_of_the_database() -> None:
    stored = Stored(turns=3, sessions=2, turns_of_sessions=4, audit=6)

    assert stored.losses(lines(), DATABASE) == [
        Loss(DATABASE, "agents.conversations", 1, "rows with a vector are missing")
    ]


@pytest.mark.parametrize(
    ("stored", "came", "expected"),
    [
        (
            Stored(turns=3, sessions=2, turns_of_sessions=3, audit=6),
            lines(turns=3),
            [
                (DATABASE, "agents.conversations", 1, True),
                (DATABASE, "agents.sessions", 1, True),
            ],
        ),
        (
            Stored(turns=4, sessions=1, turns_of_sessions=2, audit=6),
            lines(ends=1),
            [(DATABASE, "agents.sessions", 1, True), (DATABASE, "agents.sessions", 2, True)],
        ),
        (
            Stored(turns=4, sessions=2, turns_of_sessions=4, audit=3),
            lines(audit=5),
            [
                ("audit export", "audit.*.jsonl", 2, False),
                ("audit export", "audit.*.jsonl", 1, True),
            ],
        ),
    ],
    ids=["turn not delivered", "end of a session not delivered", "entry lost, another never came"],
)
def test_what_no_handler_was_given_is_a_knock_on(
    stored: Stored, came: list[Line], expected: list[tuple[str, str, int, bool]]
) -> None:
    assert losses(stored, came) == expected


def test_a_database_that_does_not_answer_says_why() -> None:
    [rows, *_] = Stored(error="gone", audit=6).losses(lines(), DATABASE)

    assert rows.what == "rows with a vector are missing; the database does not answer: gone"
