"""The migration page: every example runs and prints what it says, every name in it exists."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import arc_bus.contracts
import arc_store
import arc_telemetry
from arc_bus.agent import AgentBus

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_it_says(number: int) -> None:
    promised = re.search(r"# prints: (.*)\n\Z", EXAMPLES[number])
    assert promised is not None
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == promised[1]
    assert run.stderr == ""


def test_every_verb_of_the_platform_is_named() -> None:
    verbs = {
        name
        for name, _ in inspect.getmembers(AgentBus, inspect.isfunction)
        if name.startswith(("publish_", "produce_", "consume_", "request_brain"))
    }
    named = set(re.findall(r"\b(?:(?:publish|produce|consume)_\w+|request_brain)", PAGE))
    assert verbs <= named
    assert named - verbs == set()


def test_the_helpers_and_models_that_it_names_exist() -> None:
    helpers = set(arc_telemetry.__all__) - {"TraceSpan"}
    assert {name for name in helpers if name not in PAGE} == set()
    for name in ("Conversation", "Session", "Store"):
        assert name in PAGE
        assert name in arc_store.__all__
    for name in re.findall(r"\b(\w+)\(\w+=…", PAGE):
        assert name in (*arc_bus.contracts.__all__, *dir(AgentBus), "Settings", "init_otel") or (
            name in ("PulsarSubscription", "Retry")
        ), name
