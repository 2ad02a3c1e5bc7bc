"""Denials: what the server has refused us for want of permission; it says so out of turn."""

from __future__ import annotations

import re
from typing import Final

_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
_MOST: Final = 1000


class Denials:
    """Refusals that nobody has asked about yet."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[tuple[str, str], str] = {}

    def note(self, complaint: str) -> str | None:
        """Keep a complaint that is one; return the subject if it was about publishing."""
        found = _DENIED.search(complaint)
        if found is None:
            return None
        what = found[1].lower()
        if len(self._known) < _MOST:
            self._known[what, found[2]] = complaint
        return found[2] if what == "publish" else None

    def take(self, what: str, subject: str) -> str | None:
        """Return, once, how the server refused to `publish` to or a `subscription` of `subject`."""
        return self._known.pop((what, subject), None)
