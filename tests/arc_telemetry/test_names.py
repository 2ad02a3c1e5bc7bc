"""Our names against OpenTelemetry's own package of conventions, and against what is sent."""

from __future__ import annotations

import ast
import importlib
import itertools
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MessagingOperationTypeValues,
    MessagingSystemValues,
)
from opentelemetry.semconv.schemas import Schemas

import arc_telemetry
from arc_bus import Bus
from arc_telemetry import names
from arc_telemetry.metrics import Registry
from arc_telemetry.notices import NoticeCounter
from arc_telemetry.testing import Recorder
from arc_telemetry.timing import BusMetrics

CONVENTIONS = {
    "messaging_attributes": (
        names.SYSTEM,
        names.OPERATION_NAME,
        names.OPERATION_TYPE,
        names.DESTINATION_NAME,
        names.DESTINATION_TEMPLATE,
        names.DESTINATION_SUBSCRIPTION,
        names.CONSUMER_GROUP,
        names.MESSAGE_ID,
    ),
    "db_attributes": (
        names.DB_SYSTEM,
        names.DB_NAMESPACE,
        names.DB_OPERATION,
        names.DB_COLLECTION,
        names.DB_BATCH_SIZE,
    ),
    "error_attributes": (names.ERROR_TYPE,),
    "server_attributes": (names.SERVER_ADDRESS, names.SERVER_PORT),
    "service_attributes": (names.SERVICE_NAME, names.SERVICE_VERSION),
    "deployment_attributes": (names.DEPLOYMENT_ENVIRONMENT,),
    "exception_attributes": (
        names.EXCEPTION_TYPE,
        names.EXCEPTION_MESSAGE,
        names.EXCEPTION_STACKTRACE,
    ),
}
METRICS = {
    names.OPERATION_DURATION: ("histogram", "s"),
    names.PROCESS_DURATION: ("histogram", "s"),
    names.SENT_MESSAGES: ("counter", "{message}"),
    names.CONSUMED_MESSAGES: ("counter", "{message}"),
}
INCUBATING = "opentelemetry.semconv._incubating"


@pytest.mark.parametrize("group", CONVENTIONS)
def test_attributes_are_the_conventions_and_not_deprecated(group: str) -> None:
    module = importlib.import_module(f"{INCUBATING}.attributes.{group}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    known: dict[str, str] = {}
    body = ast.parse(source).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            told = after.value if isinstance(after, ast.Expr) else None
            known[str(node.value.value)] = str(told.value) if isinstance(told, ast.Constant) else ""
    for name in CONVENTIONS[group]:
        assert name in known, f"{name} is no attribute of {group}"
        assert "Deprecated: Replaced" not in known[name], f"{name}: {known[name]}"
        assert "Deprecated: Removed" not in known[name], f"{name}: {known[name]}"


@pytest.mark.parametrize("name", METRICS)
def test_metrics_have_the_conventions_instrument_and_unit(name: str) -> None:
    kind, unit = METRICS[name]
    module = importlib.import_module(f"{INCUBATING}.metrics.messaging_metrics")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    told = source.partition(f'Final = "{name}"')[2].partition("def ")[0]
    assert f"Instrument: {kind}" in told
    assert f"Unit: {unit}" in told
    registry = Registry()
    BusMetrics(registry)
    ours = next(metric for metric in registry if metric.name == name)
    assert (ours.kind.value, ours.unit) == (kind, unit)


def test_the_version_is_one_that_exists() -> None:
    assert Schemas.V1_44_0.value == names.SCHEMA_URL


def test_values_are_the_conventions_where_they_have_them() -> None:
    types = {member.value for member in MessagingOperationTypeValues}
    assert {names.TYPE_SEND, names.TYPE_PROCESS} <= types
    assert MessagingSystemValues.PULSAR.value == "pulsar"
    assert messaging_attributes.MESSAGING_OPERATION not in vars(names).values()


def test_what_is_ours_says_so() -> None:
    ours = [value for key, value in vars(names).items() if key.startswith(("ARC_", "EVENT_"))]
    assert len(ours) > 20
    assert all(value.startswith("arc.") for value in ours)


def test_no_name_is_written_anywhere_else() -> None:
    """A name in a string of another module would be changed there or here, and not in both."""
    told = {v for v in vars(names).values() if isinstance(v, str) and v.count(".") >= 1}
    for path in Path(str(arc_telemetry.__file__)).parent.glob("*.py"):
        if path.name == "names.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docs:
                assert node.value not in told, f"{path.name}:{node.lineno} repeats {node.value!r}"


async def test_everything_a_bus_emits_is_named_here() -> None:
    recorder = Recorder()
    NoticeCounter(recorder.registry)
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder])

    @bus.subscribe("a.b", group="g")
    async def hear(payload: dict[str, object]) -> None: ...

    async with bus:
        await bus.publish("a.b", {})
        await recorder.ended("process a.b")
    known = {value for value in vars(names).values() if isinstance(value, str)}
    for metric in recorder.registry:
        assert metric.name in known
        for labels in metric.cells:
            assert {key for key, _ in labels} <= known
    for span in recorder.spans:
        assert set(span.attributes) <= known
        assert {event.name for event in span.events} <= known
