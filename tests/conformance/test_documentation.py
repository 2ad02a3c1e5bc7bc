"""docs/conformance.md is what `python -m arc_bus.testing.report tests/conformance` wrote last."""

from __future__ import annotations

from pathlib import Path

import pytest

from arc_bus.testing.check import Check, Outcome
from arc_bus.testing.checks import CHECKS, FAULTS
from arc_bus.testing.checks.pinned import KIT_VERSION
from arc_bus.testing.report import Record, render
from arc_inmemory.transport import MemoryTransport
from arc_nats.core import CoreTransport
from arc_nats.jetstream import JetStreamTransport
from arc_pulsar.transport import PulsarTransport

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


def test_the_page_declares_what_the_transports_declare(page: str) -> None:
    declared = {
        "JetStream": JetStreamTransport,
        "Memory": MemoryTransport,
        "Nats": CoreTransport,
        "Pulsar": PulsarTransport,
    }
    found = render(
        Record(
            transport=name,
            kit=KIT_VERSION,
            id="P1",
            sentence="",
            outcome=Outcome.PASS,
            detail="",
            capabilities=kind.capabilities,
        )
        for name, kind in declared.items()
    )
    assert _section(page, "What is declared") == _section(found, "What is declared"), "stale"


def _section(text: str, heading: str) -> list[str]:
    lines = text.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    assert len(lines) > 20, f"no section {heading!r}"
    return lines


def test_no_check_failed_or_was_left_out(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert not [row for row in rows if "| ✗ |" in row or "| ? |" in row]
