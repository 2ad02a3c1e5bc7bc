"""The documentation holds: its code runs as it stands, and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from pathlib import Path

import pages
import pytest
from cyclopts import App

from arc_bus.cli.app import make_app
from arc_bus.servers import PostgresServer

WITH_PROGRAMS = [page for page in pages.PAGES if pages.programs(page)]
WITH_FILES = {
    Path("docs/command.md"): "tests/docs/test_command.py",
    Path("docs/testing.md"): "here",
    Path("docs/tutorial.md"): "here",
    Path("docs/writing-a-transport.md"): "here",
}
"""The pages with blocks that are files, and where those are run."""

FRAGMENTS = 1
"""So many Python blocks are marked `fragment` and run by nobody."""

CONFTEST = """
import pytest

@pytest.fixture
def pg_notify_url():
    return {url!r}
"""


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=str)
def test_the_programs_of_a_page_run_in_order_and_print_what_they_promise(
    page: Path, tmp_path: Path
) -> None:
    programs = pages.programs(page)
    for block, printed in zip(programs, pages.run(page, tmp_path), strict=True):
        if block.promised is not None:
            assert block.promised.fullmatch(printed), f"{page}:{block.line} printed {printed}"


def test_every_python_block_is_a_program_or_a_file_that_a_test_runs() -> None:
    found = [
        (page, b) for page in pages.PAGES for b in pages.blocks(page) if b.language == "python"
    ]
    assert len(found) >= 35
    files = {page for page, block in found if "." in block.name}
    assert files == WITH_FILES.keys()
    marked = [block for _, block in found if block.name and "." not in block.name]
    assert [block.name for block in marked] == ["fragment"] * FRAGMENTS


def test_the_transport_of_the_page_passes_the_kit(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    page = Path("docs/writing-a-transport.md")
    assert len(pages.files(page)["test_pg_notify.py"].splitlines()) <= 25
    pages.write_files(page, tmp_path)
    url = re.sub(r"^postgresql(\+\w+)?", "pgnotify", postgres_server.url)
    (tmp_path / "conftest.py").write_text(CONFTEST.format(url=url))
    information = tmp_path / "pg_notify-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pg-notify\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[arc_bus]\npgnotify = pg_notify\n")

    (tmp_path / "pytest.ini").write_text(pages.files(Path("docs/testing.md"))["pytest.ini"])

    passed = re.search(r"(\d+) passed", pages.pytest_on(tmp_path))

    assert passed is not None
    assert int(passed[1]) >= 30


def test_the_tests_of_the_testing_page_pass(tmp_path: Path) -> None:
    pages.write_files(Path("docs/testing.md"), tmp_path)
    assert "8 passed" in pages.pytest_on(tmp_path)


def test_the_tests_of_the_tutorial_pass(tmp_path: Path) -> None:
    pages.write_files(Path("docs/tutorial.md"), tmp_path)
    assert "3 passed" in pages.pytest_on(tmp_path)


def commands() -> Generator[tuple[Path, list[str]]]:
    """The lines of shell blocks, as words; a prompt and what comes after a pipe are left out."""
    for page in pages.PAGES:
        for block in pages.blocks(page):
            if block.language in ("", "console", "sh"):
                for line in re.sub(r"\\\n", " ", block.text).splitlines():
                    if words := shlex.split(line.removeprefix("$ "), comments=True):
                        yield page, words


def inline() -> Generator[tuple[Path, list[str]]]:
    """The commands named within sentences, such as `arc-bus dlq ls PATTERN` and `make docs`."""
    for page in pages.PAGES:
        text = re.sub(r"^```.*?^```$", "", (pages.ROOT / page).read_text(), flags=re.S | re.M)
        for code in re.findall(r"`((?:arc-bus|make) [^`\n]*)`", text):
            yield page, shlex.split(code)


def check_arc_bus(app: App, words: list[str]) -> str | None:
    """Return what is wrong with the words after `arc-bus`: an unknown command or option."""
    rest = words[: words.index("--")] if "--" in words else list(words)
    while rest and app.default_command is None and (rest[0] in app or rest[0][0] != "-"):
        name, *others = rest.pop(0).split("|")  # dlq ls|show|replay
        if name.isupper():  # stands for any
            return None
        for each in (name, *others):
            if each not in app:
                return f"no command {each!r}"
        app = app[name]
    known = {"--help", "--version"}
    if app.default_command is not None:
        known |= {name for each in app.assemble_argument_collection() for name in each.names}
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
    return f"no option {sorted(unknown)}" if unknown else None


def test_every_command_that_is_named_exists_with_its_options() -> None:
    app = make_app()
    makefile = (pages.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    checked = 0
    for page, words in [*commands(), *inline()]:
        if words[0] == "arc-bus":
            assert check_arc_bus(app, words[1:]) is None, f"{page}: {' '.join(words)}"
        elif words[0] == "make":
            named = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
            assert named <= targets, f"{page}: {' '.join(words)}"
        checked += words[0] in ("arc-bus", "make")
    assert checked >= 40


def test_a_command_that_does_not_exist_is_noticed() -> None:
    app = make_app()
    assert check_arc_bus(app, ["dlq", "ls", "a.b", "--json"]) is None
    assert check_arc_bus(app, ["dlq", "lst"]) == "no command 'lst'"
    assert check_arc_bus(app, ["runs", "a:b"]) == "no command 'runs'"
    assert check_arc_bus(app, ["run", "a:b", "--relaod"]) == "no option ['--relaod']"
    assert check_arc_bus(app, ["dev", "--", "x", "--anything"]) is None


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    told = set(re.findall(r": ([\w/-]+\.md)$", (pages.ROOT / "mkdocs.yml").read_text(), re.M))
    there = {str(path.relative_to(pages.DOCS)) for path in pages.DOCS.rglob("*.md")}
    assert told == there
