"""Watched: source files and whether one changed, by looking at their times.

A poll of a service's folder costs a millisecond or two; it needs no library, and it sees changes on
mounted and shared folders, of which no file system event is ever told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".py", ".toml")
_NEVER: Final = frozenset({"__pycache__", "node_modules"})


class Watched:
    """The files below some folders that end in one of `SUFFIXES`; not those of environments."""

    def __init__(self, roots: Iterable[Path]) -> None:
        """Remember what the files are like now."""
        self._roots = tuple(roots)
        self._seen = self._look()

    def changed(self) -> list[Path]:
        """Return the files that were altered, added or removed since the last call."""
        before, self._seen = self._seen, self._look()
        files = sorted(before.keys() | self._seen.keys())
        return [Path(file) for file in files if before.get(file) != self._seen.get(file)]

    def _look(self) -> dict[str, tuple[int, int]]:
        return {file: told for root in self._roots for file, told in _files(str(root))}


def _files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # removed in this very moment
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith(".") and entry.name not in _NEVER:
                yield from _files(entry.path)
        elif entry.name.endswith(SUFFIXES):
            try:
                status = entry.stat()
            except OSError:
                continue
            yield entry.path, (status.st_mtime_ns, status.st_size)
