"""A service that `arc-bus new` made passes its own tests, and whatever else looks at it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only


def test_a_new_service_passes_its_tests_and_the_linter(bare_shell: Shell) -> None:
    bare_shell("new", "service", "order-desk")

    for words, said in (
        (("pytest", "-q", "-p", "no:cacheprovider"), "2 passed"),
        (("ruff", "check", "--no-cache", "--select", "E,F,I,B,UP", "."), "All checks passed"),
        (("ruff", "format", "--no-cache", "--check", "."), "already formatted"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=bare_shell.folder / "order-desk",
            env=bare_shell.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert said in run.stdout


def test_a_folder_that_is_there_is_left_alone(bare_shell: Shell) -> None:
    (bare_shell.folder / "greeter").mkdir()

    assert "is there already" in bare_shell("new", "service", "greeter", code=2)
    assert list((bare_shell.folder / "greeter").iterdir()) == []


@pytest.mark.parametrize("name", ["Greeter", "1st", "a--b", "a_b", "../x"])
def test_a_name_that_no_package_could_have_is_refused(bare_shell: Shell, name: str) -> None:
    assert "service name" in bare_shell("new", "service", name, code=2)
