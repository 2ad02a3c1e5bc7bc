"""The pages of the documentation, and the code blocks in them: what every test of them reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT) for path in [ROOT / "README.md", *DOCS.rglob("*.md")])

_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROMISE = re.compile(r"# prints: (.*)\n\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block: `language`, what stands after it (a file's name, or `fragment`)."""

    language: str
    name: str
    text: str
    line: int

    @property
    def promised(self) -> re.Pattern[str] | None:
        """What its last comment says that it prints; four dots stand for four hex digits."""
        found = _PROMISE.search(self.text)
        if found is None:
            return None
        return re.compile(re.escape(found[1]).replace(re.escape("...."), "[0-9a-f]{4}"))


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, given from the top of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        language, _, name = match[1].partition(" ")
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(language, name.strip(), match[2], line))
    return found


def programs(page: Path) -> list[Block]:
    """Return the Python blocks without a name, which run in order, in one process."""
    return [block for block in blocks(page) if (block.language, block.name) == ("python", "")]


def files(page: Path) -> dict[str, str]:
    """Return the blocks that are files, by name."""
    return {b.name: b.text for b in blocks(page) if "." in b.name}


def write_files(page: Path, folder: Path) -> None:
    """Write the files of a page to `folder`."""
    for name, text in files(page).items():
        (folder / name).write_text(text, encoding="utf-8")


def run(page: Path, folder: Path) -> list[str]:
    """Run the programs of a page in one fresh process, and return what each has printed.

    Warnings are errors, and a traceback has the page's own line numbers.
    """
    given = [[block.line, block.text] for block in programs(page)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUNNER, page.stem],
        input=json.dumps(given),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed: list[str] = json.loads(done.stdout)
    return printed


_RUNNER = """
import contextlib, io, json, logging, pathlib, sys
# Handlers that fail are there to be shown.
logging.getLogger("arc_bus").addFilter(lambda told: " attempt " not in told.getMessage())
names = {"__name__": "__main__"}
printed = []
for line, text in json.load(sys.stdin):
    file = pathlib.Path(f"{sys.argv[1]}-{line}.py").absolute()  # some libraries read their caller
    file.write_text("\\n" * (line - 1) + text)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(file.read_text(), file, "exec"), names)
    printed.append(out.getvalue().strip())
print(json.dumps(printed))
"""


def pytest_on(folder: Path) -> str:
    """Run the tests in `folder` as their author would, warnings as errors; return what it said."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider"),
            *("-o", "pythonpath=.", str(folder)),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
