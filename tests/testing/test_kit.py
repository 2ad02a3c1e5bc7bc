"""The kit as its users meet it: what it refuses and reports, and a foreign transport under it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arc_bus.testing import Harness, TransportConformance
from arc_bus.testing.check import Check, NotConforming, Outcome, Result, check
from arc_bus.testing.checks import CHECKS
from arc_bus.testing.checks.pinned import PINNED
from arc_bus.testing.lab import Lab
from arc_bus.testing.perform import perform
from arc_bus.testing.report import OPTION, PAGE_OPTION, drift, load, render, shortcomings
from arc_bus.transport import Endpoint
from arc_inmemory.transport import MemoryTransport


class PrivateHarness(Harness):
    def __init__(self) -> None:
        super().__init__(lambda name: name)

    def connect(self) -> MemoryTransport:
        return MemoryTransport(Endpoint(url="memory://"))


def test_the_checks_are_those_of_the_pinned_list() -> None:
    assert {each.id: each.name for each in CHECKS} == PINNED
    assert len(CHECKS) >= 80


def test_a_subclass_cannot_replace_a_check() -> None:
    with pytest.raises(TypeError, match="test_P1_roundtrip"):
        type(
            "TestMine",
            (TransportConformance,),
            {"harness": PrivateHarness, "test_P1_roundtrip": lambda self: None},
        )


def test_a_subclass_cannot_remove_a_check() -> None:
    with pytest.raises(TypeError, match="test_P1_roundtrip"):
        type(
            "TestMine",
            (TransportConformance,),
            {"harness": PrivateHarness, "test_P1_roundtrip": None},
        )


def test_a_subclass_must_give_a_harness() -> None:
    with pytest.raises(TypeError, match="harness = YourHarness"):
        type("TestMine", (TransportConformance,), {})


def test_a_replaced_check_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = type("TestMine", (TransportConformance,), {"harness": PrivateHarness})()
    suite.test_M2_the_kit_is_whole()
    monkeypatch.setattr(TransportConformance, "test_P1_roundtrip", lambda self: None)
    with pytest.raises(NotConforming, match="test_P1_roundtrip"):
        suite.test_M2_the_kit_is_whole()


def test_a_missing_check_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = type("TestMine", (TransportConformance,), {"harness": PrivateHarness})()
    monkeypatch.setitem(PINNED, "P999", "another")
    with pytest.raises(NotConforming, match="P999"):
        suite.test_M2_the_kit_is_whole()


def test_a_check_needs_its_sentence() -> None:
    async def unsaid(lab: Lab) -> None:
        """Something else."""

    with pytest.raises(ValueError, match="must begin with 'Z1: '"):
        check("Z1")(unsaid)


def make(run: Callable[[Lab], None]) -> Check:
    async def experiment(lab: Lab) -> None:
        """Z1: It holds."""
        run(lab)

    return check("Z1")(experiment)


def test_what_a_transport_raises_unexpectedly_is_a_failure() -> None:
    def broken(lab: Lab) -> None:
        raise OSError("no such wire")

    result = perform(make(broken), PrivateHarness())
    assert (result.outcome, result.detail) == (Outcome.FAIL, "OSError: no such wire")


def test_a_check_that_looks_at_nothing_is_still_judged() -> None:
    def phantom(lab: Lab) -> None:
        reader = lab.history.subscribed("reader", "a.b", None, next(iter(lab.capabilities.start)))
        lab.history.receive(reader, "never published", "a.b", None, 1)

    result = perform(make(phantom), PrivateHarness())
    assert result.outcome is Outcome.FAIL
    assert "phantom" in result.detail


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


THIRD_PARTY = """
from arc_bus.testing import Harness, TransportConformance, VirtualTimeLoop
from arc_bus.transport import Endpoint
from arc_inmemory.broker import Broker
from arc_inmemory.options import MemoryOptions
from arc_inmemory.transport import MemoryTransport


class MineHarness(Harness):
    loop_factory = VirtualTimeLoop

    def __init__(self, fixture):
        super().__init__(fixture)
        self.broker = Broker(MemoryOptions())

    def connect(self):
        transport = {MAKE}
        transport.broker = self.broker
        return transport


class TestMine(TransportConformance):
    harness = MineHarness
"""


def test_a_foreign_transport_runs_the_kit_with_one_small_file(tmp_path: Path) -> None:
    text = THIRD_PARTY.replace("{MAKE}", 'MemoryTransport(Endpoint(url="memory://mine"))')
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    (tmp_path / "test_mine.py").write_text(text)
    done = run_pytest(tmp_path, "-q", f"{OPTION}=report.json")
    assert done.returncode == 0, done.stdout
    assert "conformance of Mine: " in done.stdout
    records = load((tmp_path / "report.json").read_bytes())
    assert [record.id for record in records] == list(PINNED)
    assert not shortcomings(records)
    text = render(records)
    assert "| `publish_dedup` | 120 |" in text
    assert "| P1 | What is published arrives once, with its own body, subject and id. | ✓ |" in text
    assert (
        f"| not applicable | {sum(r.outcome is Outcome.NOT_APPLICABLE for r in records)} |" in text
    )


def test_a_failing_transport_is_reported_with_what_was_seen(tmp_path: Path) -> None:
    made = "DropsTheFirst(MemoryTransport(Endpoint(url='memory://mine')), [])"
    text = THIRD_PARTY.replace("{MAKE}", made).replace("transport.broker", "transport.inner.broker")
    (tmp_path / "test_mine.py").write_text(
        "from arc_bus.testing.mutants.publishing import DropsTheFirst\n" + text
    )
    done = run_pytest(tmp_path, "-q", f"{OPTION}=report.json", "-k", "P1_ or M1a or C7")
    assert done.returncode == 1
    assert "What is published arrives once, with its own body, subject and id." in done.stdout
    records = load((tmp_path / "report.json").read_bytes())
    found = shortcomings(records)
    assert any(line.startswith("Mine: P1 failed: lost: ") for line in found)
    assert found[-1].startswith("Mine: not run: P2")
    assert "| P2 | concurrent_publishers | ? |" in render(records)


def test_a_page_that_says_something_else_than_the_kit_found_fails_the_run(tmp_path: Path) -> None:
    text = THIRD_PARTY.replace("{MAKE}", 'MemoryTransport(Endpoint(url="memory://mine"))')
    (tmp_path / "test_mine.py").write_text(text)
    (tmp_path / "page.md").write_text("|  | Mine |\n", encoding="utf-8")
    done = run_pytest(tmp_path, "-q", f"{OPTION}=report.json", f"{PAGE_OPTION}=page.md")
    assert done.returncode == 1
    assert "page.md is out of date, renew it with make conformance: line 1" in done.stdout
    records = load((tmp_path / "report.json").read_bytes())
    right = render(records)
    assert drift(records, right) == ""
    for wrong, line in (
        (right.replace("| `max_payload` | 1048576 |", "| `max_payload` | 9 |"), "9 |'; the kit"),
        (right.replace("| P1 | What", "| P1 | What ever"), "What ever is published"),
        (right + "and more\n", "and more"),
    ):
        assert line in drift(records, wrong)
    other = right.replace("|  | Mine |", "|  | Mine | Yours |")
    assert drift(records, other) == "", "Yours was not run: that says nothing about the page"


def test_a_report_says_what_a_capability_is() -> None:
    result = Result(
        id="P1",
        name="roundtrip",
        sentence="A | sentence.",
        outcome=Outcome.PASS,
        capabilities=MemoryTransport.capabilities,
    )
    from arc_bus.testing.report import dump, record

    text = render(load(dump([record("Memory", result)])))
    assert "| P1 | A \\| sentence. | ✓ |" in text
    assert "| `delivery` | at least once |" in text
    assert "| `wildcards` | tail, token |" in text


def test_virtual_time_is_asked_for_by_a_marker(tmp_path: Path) -> None:
    (tmp_path / "test_time.py").write_text(
        """
import asyncio
import pytest


@pytest.fixture
async def before():
    return asyncio.get_running_loop().time()


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_an_hour(before):
    await asyncio.sleep(3600)
    assert asyncio.get_running_loop().time() - before == 3600


@pytest.mark.asyncio
async def test_real():
    assert "Virtual" not in type(asyncio.get_running_loop()).__name__
"""
    )
    done = run_pytest(tmp_path, "-q", "--asyncio-mode=auto", "--strict-markers")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_planned_fault_that_did_not_happen_fails_its_test(tmp_path: Path) -> None:
    (tmp_path / "test_faults.py").write_text(
        "def test_nothing_happens(arc_faults):\n    arc_faults.drop('a.b', times=2)\n"
    )
    done = run_pytest(tmp_path, "-q")
    assert done.returncode == 1
    assert "planned faults that did not happen: drop a.b x 2" in done.stdout


def test_the_pytest_plugin_loads_neither_kit_nor_transports() -> None:
    script = (
        "import sys, arc_bus.testing.pytest_plugin;"
        "print([name for name in sys.modules"
        " if name.startswith(('arc_bus.testing.c', 'arc_bus.testing.v', 'arc_inmemory'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
