"""Dedup: which message ids were published lately."""

from __future__ import annotations


class Dedup:
    """Remembers (destination, id) for `window` seconds, of the last `size` to 2 `size` publishes.

    The destination is part of it because a dead letter carries its original's id elsewhere.
    """

    __slots__ = ("_new", "_old", "_size", "_turn", "_window")

    def __init__(self, window: float, size: int) -> None:
        # Two halves that are dropped in turn: taking the oldest out of one dict, one by one,
        # walks over all the holes that were left before it.
        self._new: dict[tuple[str, str], float] = {}
        self._old: dict[tuple[str, str], float] = {}
        self._window = window
        self._size = size
        self._turn = 0.0

    def first(self, destination: str, id: str, now: float) -> bool:
        """Remember that it was published at `now`; False if it was within the window before."""
        key = (destination, id)
        new = self._new
        at = new.get(key)
        if at is None and self._old:
            at = self._old.get(key)
        if at is not None and now - at < self._window:
            return False
        if now >= self._turn or len(new) >= self._size:
            self._old = new
            self._new = new = {}
            self._turn = now + self._window
        new[key] = now
        return True
