"""The hazards of our client libraries, by number, and the tests that show each to be handled.

A test whose name has a number (`test_hazard_15_...`) shows that hazard; the others are named here.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

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

SHOWN = {
    6: (
        "plugins/arc_nats/test_streams.py::test_a_stream_that_breaks_the_routes_promises_fails_the_start",
        "plugins/arc_pulsar/test_admin.py::test_policies_are_compared_with_what_the_service_needs",
    ),
    7: (
        "plugins/arc_nats/test_streams.py"
        "::test_a_route_that_asks_for_a_durability_says_what_it_could_not_verify",
    ),
    14: (
        "arc_bus/test_settle.py::test_a_handler_that_cancels_itself_harms_nobody_and_is_counted",
        "arc_bus/test_pool.py::test_a_slow_key_delays_no_other_key",
    ),
    21: (
        "plugins/arc_nats/test_consumers.py"
        "::test_a_consumer_that_differs_fails_the_start_or_is_altered",
        "plugins/arc_nats/test_streams.py"
        "::test_provision_true_alters_what_can_be_altered_and_keeps_the_rest",
    ),
    23: (
        "plugins/arc_pulsar/test_security.py"
        "::test_a_role_with_the_generated_permissions_can_serve_and_nothing_else",
        "plugins/arc_nats/test_core.py::test_a_reply_carries_none_of_the_requests_headers",
    ),
    25: (
        "arc_store/test_relay.py::test_transactions_that_commit_in_reverse_order_are_both_relayed",
        "arc_store/test_failures.py::test_a_commit_without_an_answer_leaves_exactly_one_row",
    ),
}


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


@pytest.mark.parametrize("number", HAZARDS)
def test_every_hazard_is_shown(number: int) -> None:
    named = [name for names in _tests().values() for name in names if number in _numbers(name)]
    for node in SHOWN.get(number, ()):
        path, _, name = node.partition("::")
        assert name in _tests().get(path, set()), f"{node} does not exist"
    assert named or number in SHOWN, f"nothing shows hazard {number}: {HAZARDS[number]}"


def test_no_test_shows_a_hazard_that_is_none() -> None:
    numbers = {n for names in _tests().values() for name in names for n in _numbers(name)}
    assert numbers <= HAZARDS.keys()
