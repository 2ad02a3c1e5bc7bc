"""The README's example runs, and what it prints is what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def example() -> str:
    found = re.search(r"## Twelve lines\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None, "the README has lost its example"
    return found[1]


def test_the_example_of_the_readme_prints_what_it_says() -> None:
    code = example()
    promised = re.search(r"print\(.*\)  # (.*)", code)
    assert promised is not None

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == promised[1]


def test_the_example_is_about_twelve_lines_of_code() -> None:
    lines = [line for line in example().splitlines() if line.strip()]

    assert len(lines) <= 14
