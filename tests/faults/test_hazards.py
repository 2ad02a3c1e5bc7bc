"""The hazards of our client libraries, by number, and what shows each to be handled.

A test whose name has a number (`test_hazard_15_...`) shows that hazard. `removals.toml` lists what
handles each, and the test that fails without it; `make hazards` takes one after the other away.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
sys.path.insert(0, str(HERE))

from remove import Edit, Removal, removals, removed, verdict  # noqa: E402

HAZARDS = {
    1: "a subscriber is deaf after one bad message",
    2: "delivery into another subscription by a control character",
    3: "TLS that was asked for is not enforced",
    4: "a publish that never ends",
    5: "a publish with an unknown outcome",
    6: "a durable route that stores nothing",
    7: "acknowledged, and not on the disk",
    8: "a cancelled receive eats a message",
    9: "the library aborts or hangs the process",
    10: "a black hole is never left",
    11: "a client closed for good",
    12: "published, and lost in a buffer",
    13: "cancellation that is swallowed",
    14: "a failing handler takes its neighbours along",
    15: "silent drops, and memory without a bound",
    16: "a poison message without an end, a dead letter lost",
    17: "pull requests that stall, pile up or are forged",
    18: "dead letters and nacks that mean something else on each transport",
    19: "a producer's name, and deduplication that is believed in",
    20: "a full queue freezes the loop",
    21: "streams and consumers that are not as they should be",
    22: "a full disk",
    23: "tenants that see each other",
    24: "hostile input",
    25: "an outbox that passes over what commits late",
}

REMOVALS = removals()


@cache
def _tests() -> dict[str, set[str]]:
    """Return the test functions of each file, by its path below `tests/`."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
        found[path.relative_to(TESTS).as_posix()] = names
    return found


def _numbers(name: str) -> set[int]:
    found = re.match(r"test_hazards?_((?:\d+_)+)", name)
    return {int(number) for number in found[1].split("_") if number} if found else set()


def test_every_hazard_has_a_handling_and_a_test_that_fails_without_it() -> None:
    assert {removal.hazard for removal in REMOVALS} == HAZARDS.keys()


@pytest.mark.parametrize("removal", REMOVALS, ids=[one.handling for one in REMOVALS])
def test_a_removal_takes_away_what_is_there_and_names_a_test_that_is_there(
    removal: Removal,
) -> None:
    """What is renamed or rewritten is renewed in `removals.toml`, and tried by `make hazards`."""
    path, _, name = removal.test.partition("::")
    assert name in _tests().get(path, set()), f"{removal.test} does not exist"
    for text in removal.edited(TESTS.parent).values():
        ast.parse(text)


def test_no_test_shows_a_hazard_that_is_none() -> None:
    numbers = {n for names in _tests().values() for name in names for n in _numbers(name)}
    assert numbers <= HAZARDS.keys()


HANDLED = Removal(hazard=1, handling="h", test="t", fails="TimeoutError", edits=[])


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [
        (1, "E   TimeoutError\nFAILED t - TimeoutError", ""),
        (1, "FAILED t - ImportError", "FAILS FOR ANOTHER REASON"),
        (1, "  TimeoutError in its source\nE   NameError", "FAILS FOR ANOTHER REASON"),
        (2, "E   TimeoutError", "FAILS FOR ANOTHER REASON"),
        (1, "FAILED t - Failed: Timeout (>60.0s) from pytest-timeout.", "HANGS"),
        (0, "1 passed in 0.1s", "PASSES WITHOUT IT"),
        (0, "1 skipped in 0.1s", "SKIPPED"),
    ],
)
def test_only_a_failure_for_its_reason_counts(code: int, output: str, problem: str) -> None:
    said = verdict(HANDLED, code, output)
    assert said.startswith(problem)
    assert bool(said) == bool(problem)


def test_what_is_to_be_removed_must_be_there_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\ntwo\n")

    def removal(old: str) -> Removal:
        edit = Edit(file="a.py", old=old, new="three")
        return msgspec.structs.replace(HANDLED, edits=[edit])

    with removed(removal("one"), tmp_path):
        assert (tmp_path / "a.py").read_text() == "three\ntwo\ntwo\n"
    assert (tmp_path / "a.py").read_text() == "one\ntwo\ntwo\n"
    for old, count in (("two", 2), ("four", 0)):
        with pytest.raises(LookupError, match=f"{count} times"):
            removal(old).edited(tmp_path)


def test_a_removal_is_tried_as_make_hazards_does() -> None:
    command = [sys.executable, str(HERE / "remove.py"), "a handler that cancels its own task"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fails without it" in done.stdout
    assert "1 removals, 0 wrong" in done.stdout
