"""The telemetry page: its tables are what is emitted."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import arc_telemetry
from arc_bus import Bus, Retry
from arc_telemetry import names
from arc_telemetry.conventions import ATTRIBUTES, INSTRUMENTS, OURS, as_markdown
from arc_telemetry.testing import Recorder

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
NO_TERMS = {"SCHEMA_URL", "SCOPE", "ERROR_OTHER", "DEFAULT_ENDPOINT"}
"""Constants that are values, not names of attributes or metrics."""


def test_the_tables_are_those_of_the_code() -> None:
    assert as_markdown() in PAGE, "paste what `python -m arc_telemetry.conventions` prints"
    assert f"({names.SCHEMA_URL.rpartition('/')[2]})" in PAGE


def test_every_name_stands_in_one_table_once_and_nothing_else_does() -> None:
    told = [term.name for term in (*ATTRIBUTES, *INSTRUMENTS)]
    events = {names.EXCEPTION_EVENT, *(v for k, v in vars(names).items() if k.startswith("EVENT_"))}
    ours = {
        value
        for key, value in vars(names).items()
        if isinstance(value, str) and "." in value and key.isupper() and key not in NO_TERMS
    }
    assert sorted(told) == sorted(ours - events)
    for term in (*ATTRIBUTES, *INSTRUMENTS):
        assert (term.level == OURS) is term.name.startswith("arc."), term.name


async def test_what_a_bus_emits_is_on_what_the_tables_say() -> None:
    recorder = Recorder()
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder])

    @bus.subscribe("a.b", group="g", retry=Retry(attempts=2, first=0.001))
    async def fail(payload: dict[str, object]) -> None:
        raise ValueError

    @bus.subscribe("a.c")
    async def answer(payload: dict[str, object]) -> dict[str, object]:
        return {}

    async with bus:
        await bus.publish("a.b", {})
        await bus.request("a.c", {}, dict)
        await recorder.ended("process a.b")
        await recorder.ended("process a.c")
    on = {attribute.name: attribute.on for attribute in ATTRIBUTES}
    for span in recorder.spans:
        for name in span.attributes:
            assert span.name.split()[0] in on[name], (span.name, name)
        for event in span.events:
            for name in event.attributes:
                assert "event" in on[name], (event.name, name)
    instruments = {each.name: (each.kind, each.unit) for each in INSTRUMENTS}
    assert len(list(recorder.registry)) > 10
    for metric in recorder.registry:
        assert (metric.kind.value, metric.unit) == instruments[metric.name]
        for labels in metric.cells:
            for name, _ in labels:
                assert "metrics" in on[name], (metric.name, name)


def test_every_helper_is_in_the_table_with_its_parameters() -> None:
    table = dict(re.findall(r"\| `(\w+)\(([^`]*)\)`", PAGE))
    helpers = {
        name: getattr(arc_telemetry, name)
        for name in arc_telemetry.__all__
        if inspect.isfunction(getattr(arc_telemetry, name))
    }
    assert set(table) == set(helpers)
    for name, helper in helpers.items():
        told = re.findall(r"(\w+)(?=[,=]|$)", re.sub(r'=("[^"]*"|[\w.]+)', "", table[name]))
        parameters = list(inspect.signature(helper).parameters)
        assert told == parameters[: len(told)], name
        required = [
            p.name
            for p in inspect.signature(helper).parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD
        ]
        assert set(required) <= set(told), name
