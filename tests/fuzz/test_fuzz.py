"""Each target in short: its seeds, mutations of them, and what Hypothesis thinks of."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from mutate import mutated  # noqa: E402
from seeds import SEEDS  # noqa: E402
from targets import TARGETS  # noqa: E402

each_target = pytest.mark.parametrize("name", TARGETS)


@each_target
def test_hazard_24_no_mutation_of_a_good_input_raises_what_is_not_declared(name: str) -> None:
    seed = random.randrange(2**32)
    dice, target = random.Random(seed), TARGETS[name]
    for data in SEEDS[name]:
        target(data)
    for _ in range(1500):
        data = mutated(dice, SEEDS[name])
        try:
            target(data)
        except Exception as error:
            pytest.fail(f"seed {seed}: {data!r}: {error!r}")


@each_target
@settings(max_examples=200)
@given(st.data())
def test_hazard_24_no_bytes_raise_what_is_not_declared(name: str, data: st.DataObject) -> None:
    noise = st.binary(max_size=300) | st.text(max_size=100).map(lambda t: t.encode(errors="ignore"))
    TARGETS[name](data.draw(noise))


def test_the_long_run_runs_and_finds_what_is_there(tmp_path: Path) -> None:
    """As `make fuzz` does, on the quickest target; and with an error planted in it."""
    command = [sys.executable, str(HERE / "fuzz.py"), "-n", "2000", "--seed", "7", "reply_subject"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,000 inputs" in done.stdout
    assert "nothing found" in done.stdout
    for file in HERE.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    planted = (tmp_path / "targets.py").read_text()
    planted = planted.replace("assert attempt(data) >= 0", "assert attempt(data) != 1")
    (tmp_path / "targets.py").write_text(planted)
    command[1] = str(tmp_path / "fuzz.py")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FOUND SOMETHING" in done.stdout
