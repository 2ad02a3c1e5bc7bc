"""Result: a run in numbers; what `--json` writes and the tables show."""

from __future__ import annotations

import msgspec

from stage.accounts import Hop, Line, Loss
from stage.stored import Stored


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything was published, delivered and stored if `losses` is empty.

    `turns_held` had an answer, `turns_spoken` also their sound in time. `dead_lettered` messages
    went to the dead letters, `replayed` of them were replayed, `dead_left` are still there.
    `spans` and `services` are those of the trace that is shown.
    """

    pulsar: str
    copies: int
    seconds: float
    turns_planned: int
    turns_held: int
    turns_spoken: int
    dead_lettered: int
    replayed: int
    dead_left: int
    stored: Stored
    spans: int
    services: list[str]
    lines: list[Line]
    hops: list[Hop]
    losses: list[Loss]
