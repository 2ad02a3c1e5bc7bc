"""The pytest plugin: fixtures, virtual time, and reports of the conformance kit.

It is loaded in every test run of an environment that has this distribution, so it imports nothing
of it before it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections import Counter

    from arc_bus.testing.faults import Faults
    from arc_bus.testing.recorder import Recorder

_PROPERTY = "arc_conformance"
_VIRTUAL = "virtual_time"
_RECORDS = pytest.StashKey[list[dict[str, object]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for the report and the page."""
    group = parser.getgroup("arc_bus")
    group.addoption(
        "--arc-conformance-report",
        metavar="PATH",
        help="write what the conformance kit found to PATH, as JSON",
    )
    group.addoption(
        "--arc-conformance-page",
        metavar="PATH",
        help="fail if the page at PATH says something else than the kit found; where all ran",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_VIRTUAL}: run an async test on an event loop whose clock jumps (by pytest-asyncio)",
    )
    config.stash[_RECORDS] = []
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist sees a part of it only
        config.pluginmanager.register(_Reports(config), "arc_bus_conformance")


@pytest.fixture
def arc_memory() -> Generator[str]:
    """The URL of an in-memory broker of this test's own, which outlives the buses that use it."""
    from uuid import uuid4

    from arc_bus.plugins import Plugins
    from arc_bus.transport import Endpoint

    url = f"memory://{uuid4().hex}"
    keeper = Plugins().transport(Endpoint(url=url))
    yield url
    del keeper


@pytest.fixture
def arc_recorder() -> Recorder:
    """A recorder to give to `Bus(plugins=[...])`."""
    from arc_bus.testing.recorder import Recorder

    return Recorder()


@pytest.fixture
def arc_faults() -> Generator[Faults]:
    """Faults for `Bus(plugins=[...])` on memory; what was planned must have happened at the end."""
    from arc_bus.testing.faults import Faults

    faults = Faults()
    yield faults
    left = faults.left()
    if left:
        pytest.fail(f"planned faults that did not happen: {', '.join(left)}")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the loop to pytest-asyncio when the first test asks for it, and not before.

    Whoever answers its hook decides for every test; a run without the marker is left alone.
    """
    plugins = metafunc.config.pluginmanager
    if metafunc.definition.get_closest_marker(_VIRTUAL) and not plugins.has_plugin(_VIRTUAL):
        plugins.register(_VirtualTime(), _VIRTUAL)


class _VirtualTime:
    """Answers pytest-asyncio's question for event loops."""

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_asyncio_loop_factories(
        self, item: pytest.Item
    ) -> Generator[None, object, Mapping[str, Callable[[], asyncio.AbstractEventLoop]]]:
        others = yield
        if item.get_closest_marker(_VIRTUAL):
            from arc_bus.testing.virtual_time import VirtualTimeLoop

            return {_VIRTUAL: VirtualTimeLoop}
        if others is None:
            return {"asyncio": asyncio.new_event_loop}
        return cast("Mapping[str, Callable[[], asyncio.AbstractEventLoop]]", others)


class _Reports:
    """Tells "not applicable" from "passed", and writes the report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._records = config.stash[_RECORDS]
        self._drift = ""

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if report.when != "call":  # a file that cannot be collected is reported here as well
            return None
        found = _record(report)
        if found and found["outcome"] == "not applicable":
            return "not applicable", "-", f"NOT APPLICABLE ({found['detail']})"
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = _record(report)
        if report.when == "call" and found:
            self._records.append(found)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._drift:
            terminalreporter.write_line(self._drift, red=True)
        for transport, counts in _counts(self._records).items():
            said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
            terminalreporter.write_line(f"conformance of {transport}: {said}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        path = self._config.getoption("--arc-conformance-report")
        page = self._config.getoption("--arc-conformance-page")
        # A worker of pytest-xdist has a part only; the process that started it gets them all.
        if not (path or page) or hasattr(self._config, "workerinput"):
            return
        from arc_bus.testing.report import drift, dump, load

        text = dump(self._records)
        if path:
            Path(str(path)).write_bytes(text)
        if page and (wrong := drift(load(text), Path(str(page)).read_text(encoding="utf-8"))):
            self._drift = f"{page} is out of date, renew it with make conformance: {wrong}"
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _record(report: pytest.TestReport) -> dict[str, object] | None:
    for name, value in report.user_properties:
        if name == _PROPERTY:
            return cast("dict[str, object]", value)
    return None


def _counts(records: list[dict[str, object]]) -> dict[str, Counter[str]]:
    from collections import Counter

    found: dict[str, Counter[str]] = {}
    for each in records:
        found.setdefault(str(each["transport"]), Counter())[str(each["outcome"])] += 1
    return found
