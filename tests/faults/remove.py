"""Take the handling of a hazard away and see its test fail: `make hazards ONLY="5 17"`.

`removals.toml` lists what handles the hazards of `test_hazards.py`: the text that does it, what
stands there without it, the test that must then fail, and words of that failure. Each is tried in a
copy of the tree, so nothing here is touched. The exit code is 1 if a test passed all the same, hung
until its time-out, or failed for another reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE = 60  # seconds until a test counts as hanging


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text of `file` that stands there once, and what replaces it."""

    file: str
    old: str
    new: str


class Removal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What handles a hazard, the edits that take it away, and the test that fails without it."""

    hazard: int
    handling: str
    test: str
    fails: str
    edits: list[Edit]

    def edited(self, root: Path) -> dict[str, str]:
        """Return its files below `root` as they are without it. Raises LookupError."""
        texts: dict[str, str] = {}
        for edit in self.edits:
            text = texts.get(edit.file) or (root / edit.file).read_text(encoding="utf-8")
            if (count := text.count(edit.old)) != 1:
                raise LookupError(f"{edit.file} has this {count} times, not once:\n{edit.old}")
            texts[edit.file] = text.replace(edit.old, edit.new)
        return texts


def removals() -> list[Removal]:
    """Return all of `removals.toml`."""
    text = (HERE / "removals.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, list[Removal]])["removal"]


@contextmanager
def removed(removal: Removal, root: Path) -> Iterator[None]:
    """Make the edits below `root` for a block."""
    edited = removal.edited(root)
    before = {file: (root / file).read_text(encoding="utf-8") for file in edited}
    try:
        for file, text in edited.items():
            (root / file).write_text(text, encoding="utf-8")
        yield
    finally:
        for file, text in before.items():
            (root / file).write_text(text, encoding="utf-8")


def run(test: str, root: Path) -> tuple[int, str]:
    """Run one test of the tree at `root`; return pytest's exit code and its output."""
    paths = os.pathsep.join((str(root), str(root / "plugins")))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"),
            *("--timeout", str(PATIENCE), f"tests/{test}"),
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500"},
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def verdict(removal: Removal, code: int, output: str) -> str:
    """Return what is wrong with a test's outcome, nothing if it failed as it must."""
    said = [line for line in output.splitlines() if line.startswith(("E  ", "FAILED "))]
    if code == 0:
        return "SKIPPED" if " skipped" in output else "PASSES WITHOUT IT"
    if "pytest-timeout" in output:
        return "HANGS"
    if code != 1 or not any(removal.fails in line for line in said):
        return f"FAILS FOR ANOTHER REASON THAN {removal.fails!r}"
    return ""


def wanted(removal: Removal, words: list[str]) -> bool:
    """Return whether a removal is asked for: by its hazard's number, or words of its handling."""
    number = str(removal.hazard)
    return not words or any(
        word == number if word.isdigit() else word in removal.handling for word in words
    )


def main() -> None:
    """Try what was asked for, or all."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("which", nargs="*", help="a hazard's number, or words of a handling; all")
    words = asked.parse_args().which
    chosen = [one for one in removals() if wanted(one, words)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for removal in chosen:
            with removed(removal, root):
                code, output = run(removal.test, root)
            problem = verdict(removal, code, output)
            wrong += bool(problem)
            print(f"{removal.hazard:2} {removal.handling}: {problem or 'fails without it'}")
            print(f"   {removal.test}", flush=True)
            if problem:
                print(output[-2000:], flush=True)
    print(f"{len(chosen)} removals, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
