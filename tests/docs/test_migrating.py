"""The migration page: every name in it exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import arc_bus.contracts
import arc_store
import arc_telemetry
from arc_bus.agent import AgentBus

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")


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
