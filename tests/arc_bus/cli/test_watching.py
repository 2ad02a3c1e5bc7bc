"""Which files count as a service's source, and when one has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from arc_bus.cli.watching import Watched


def write(folder: Path, name: str, text: str = "x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_altered_added_and_removed_is_told_once(tmp_path: Path) -> None:
    altered, removed = write(tmp_path, "a/b.py"), write(tmp_path, "c.toml")
    watched = Watched([tmp_path])
    assert watched.changed() == []

    altered.write_text("longer")
    removed.unlink()
    added = write(tmp_path, "d/e.py")

    assert watched.changed() == sorted([altered, removed, added])
    assert watched.changed() == []


@pytest.mark.parametrize(
    "name", ["notes.txt", ".git/x.py", "__pycache__/x.py", "node_modules/x.py", "env/lib/x.py"]
)
def test_other_files_and_environments_are_not_looked_at(tmp_path: Path, name: str) -> None:
    write(tmp_path, "env/pyvenv.cfg")
    watched = Watched([tmp_path])

    write(tmp_path, name)

    assert watched.changed() == []


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert Watched([tmp_path / "gone"]).changed() == []
