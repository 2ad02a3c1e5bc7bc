"""Denials: what the server has refused us for want of permission; it says so out of turn."""

from __future__ import annotations

import re
from typing import Final

_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
_MOST: Final = 1000


class Denials:
    """The last refusal of each subject, of the latest thousand; `count` tells when it came."""

    def __init__(self) -> None:
        """Know none yet."""
        self.count = 0
        self._known: dict[tuple[str, str], tuple[int, str]] = {}

    def note(self, complaint: str) -> str | None:
        """Keep a complaint that is one; return the subject if it was about publishing."""
        found = _DENIED.search(complaint)
        if found is None:
            return None
        what = found[1].lower()
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self.count += 1
        self._known[what, found[2]] = (self.count, complaint)
        return found[2] if what == "publish" else None

    def since(self, count: int, what: str, subject: str) -> str | None:
        """Return how the server refused to `publish` to or a `subscription` of `subject`.

        None unless it did so after `count` refusals; all who were refused by then are told.
        """
        number, complaint = self._known.get((what, subject), (0, ""))
        return complaint if number > count else None
