"""The documentation's code runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from arc_bus.servers import PostgresServer

DOCS = Path(__file__).parent.parent / "docs"

CONFTEST = """
import pytest

@pytest.fixture
def pg_notify_url():
    return {url!r}
"""


def files_of(page: str) -> dict[str, str]:
    """Return the code blocks of a page that name a file, by that name."""
    blocks = re.findall(r"```python ([\w.]+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks, f"{page} names no file"
    return dict(blocks)


def test_the_transport_of_the_page_passes_the_kit(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    files = files_of("writing-a-transport.md")
    assert len(files["test_pg_notify.py"].splitlines()) <= 25
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    url = re.sub(r"^postgresql(\+\w+)?", "pgnotify", postgres_server.url)
    (tmp_path / "conftest.py").write_text(CONFTEST.format(url=url))
    information = tmp_path / "pg_notify-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pg-notify\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[arc_bus]\npgnotify = pg_notify\n")

    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider"),
            *("-o", "pythonpath=.", "-o", "asyncio_mode=auto", str(tmp_path)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= 30


def test_the_tests_of_the_testing_page_pass(tmp_path: Path) -> None:
    for name, text in files_of("testing.md").items():
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-o", "asyncio_mode=auto", str(tmp_path)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "8 passed" in run.stdout
