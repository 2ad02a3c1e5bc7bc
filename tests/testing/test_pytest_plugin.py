from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_file_that_cannot_be_collected_is_told_as_ever(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import a_module_that_is_not_there\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "No module named 'a_module_that_is_not_there'" in run.stdout
    assert run.returncode == 2
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
