"""docs/conformance.md is what `python -m arc_bus.testing.report tests/conformance` wrote last."""

from __future__ import annotations

from pathlib import Path

import pytest

from arc_bus.testing.check import Check
from arc_bus.testing.checks import CHECKS, FAULTS
from arc_bus.testing.checks.pinned import KIT_VERSION

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("check", [*CHECKS, *FAULTS], ids=lambda check: check.id)
def test_the_page_has_a_row_for_each_check_with_its_sentence(check: Check, page: str) -> None:
    assert f"| {check.id} | {check.sentence} | " in page, "stale: run make conformance"


def test_the_page_is_of_this_version_of_the_kit(page: str) -> None:
    assert f"The conformance kit, version {KIT_VERSION}, has {len(CHECKS)} checks" in page


@pytest.mark.parametrize("transport", ["JetStream", "Memory", "Nats", "Pulsar"])
def test_the_page_tells_of_each_transport(transport: str, page: str) -> None:
    assert f"| {transport} |" in page


def test_no_check_failed_or_was_left_out(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert not [row for row in rows if "| ✗ |" in row or "| ? |" in row]
