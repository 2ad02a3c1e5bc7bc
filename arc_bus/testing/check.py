"""Check: one named sentence about transports, and the coroutine that finds out whether it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from arc_bus.testing.need import Need
from arc_bus.transport import Capabilities

if TYPE_CHECKING:
    from arc_bus.testing.lab import Lab

Experiment: TypeAlias = "Callable[[Lab], Awaitable[None]]"
"""Tries the sentence in a fresh `Lab`; raises when it does not hold."""


class NotConforming(AssertionError):
    """A transport does not do what it declares; the message says what was seen instead."""


class Outcome(StrEnum):
    """What a check can end in. There is no fourth: nothing is skipped, nothing expected to fail."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


class Check(msgspec.Struct, frozen=True):
    """`id` is the row of the published list, `name` what it is called, `sentence` what it says.

    It applies to every transport whose capabilities meet all of `needs`; nothing else decides.
    """

    id: str
    name: str
    sentence: str
    needs: tuple[Need, ...]
    run: Experiment

    def missing(self, capabilities: Capabilities) -> str | None:
        """Return the first need that is not met, None if the check applies."""
        for need in self.needs:
            if not need.met(capabilities):
                return need.name
        return None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one check: `detail` is the missing capability, or what went wrong.

    `capabilities` are those that the transport's class declares, None if none could be made.
    """

    id: str
    name: str
    sentence: str
    outcome: Outcome
    detail: str = ""
    error: BaseException | None = None
    capabilities: Capabilities | None = None


def check(id: str, *needs: Need) -> Callable[[Experiment], Check]:
    """Make the decorated coroutine function the check `id`; its docstring reads `id: sentence`."""

    def make(run: Experiment) -> Check:
        said, _, sentence = (run.__doc__ or "").partition(": ")
        if said != id or not sentence:
            raise ValueError(f"{run!r}: its docstring must begin with '{id}: '")
        sentence = " ".join(sentence.split("\n\n")[0].split())
        name: str = run.__name__
        return Check(id, name, sentence, needs, run)

    return make
