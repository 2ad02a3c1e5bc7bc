"""The page for Prometheus, and the dashboard and alerts that are built on its names."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from arc_bus import Bus, Retry, hookimpl
from arc_bus.errors import ConfigError
from arc_bus.notice import Notice, NoticeKind, Observer
from arc_telemetry import Settings
from arc_telemetry.backlog import Backlog
from arc_telemetry.conventions import INSTRUMENTS
from arc_telemetry.metrics import Derived, Kind, Registry
from arc_telemetry.prometheus import exposition, name_of, page
from arc_telemetry.providers import Losses
from arc_telemetry.testing import Recorder
from arc_telemetry.wiring import destinations_of

FILES = importlib.resources.files("arc_telemetry") / "dashboards"
_METRIC = re.compile(r"\b(?:messaging|arc)_[a-z_]+")
_BY = re.compile(r"\b(?:by|without) \(([^)]*)\)|\{([^}]*)\}")
_FUNCTION_OF_LABELS = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("messaging.process.duration", "s", Kind.HISTOGRAM, "messaging_process_duration_seconds"),
        ("arc.messages.retried", "{message}", Kind.COUNTER, "arc_messages_retried_total"),
        ("arc-piper-tts.latency", "ms", Kind.HISTOGRAM, "arc_piper_tts_latency_milliseconds"),
        ("arc.outbox.age", "s", Kind.GAUGE, "arc_outbox_age_seconds"),
        ("wait.seconds", "s", Kind.GAUGE, "wait_seconds"),
    ],
)
def test_names_follow_opentelemetrys_rules(name: str, unit: str, kind: Kind, expected: str) -> None:
    assert name_of(name, unit, kind) == expected


def test_the_page_has_buckets_that_add_up_and_labels_that_cannot_break_out() -> None:
    registry = Registry()
    histogram = registry.histogram("wait", "s", (0.1, 1.0)).cell({"to": 'a"\n\\b'})
    for value in (0.05, 0.1, 0.5, 3.0):
        histogram.observe(value)
    registry.gauge("on").put({"yes": True}, Derived(lambda: 1))
    assert exposition(registry, {"service.name": "svc"}).splitlines() == [
        "# TYPE target_info gauge",
        'target_info{service_name="svc"} 1',
        "# TYPE on gauge",
        'on{yes="true"} 1',
        "# TYPE wait_seconds histogram",
        'wait_seconds_bucket{to="a\\"\\n\\\\b",le="0.1"} 2',
        'wait_seconds_bucket{to="a\\"\\n\\\\b",le="1"} 3',
        'wait_seconds_bucket{to="a\\"\\n\\\\b",le="+Inf"} 4',
        'wait_seconds_sum{to="a\\"\\n\\\\b"} 3.65',
        'wait_seconds_count{to="a\\"\\n\\\\b"} 4',
    ]


async def fetch(port: int, path: str = "/metrics") -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body.decode()

    return await asyncio.to_thread(get)


async def test_the_page_is_served_and_nothing_else() -> None:
    registry = Registry()
    registry.counter("turns").cell({})
    async with page(registry, "127.0.0.1:0") as port:
        assert "turns_total 0" in await fetch(port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await fetch(port, "/etc/passwd")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"nonsense\r\n\r\n")
        assert b"404" in await reader.read()
        writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        assert "turns_total 0" in await fetch(port)


async def test_a_place_that_cannot_be_had_stops_the_bus_from_starting() -> None:
    async with page(Registry(), "127.0.0.1:0") as taken:
        recorder = Recorder(settings=Settings(prometheus=f"127.0.0.1:{taken}"))
        with pytest.raises(ConfigError, match="cannot serve at"):
            await Bus("svc", routes={"": "memory://"}, plugins=[recorder]).start()
    with pytest.raises(ConfigError, match="nowhere"):
        async with page(Registry(), "nowhere"):
            pass


class Outbox:
    async def depth(self) -> tuple[int, float]:
        return 1, 0.5


class Store:
    plugin_name = "store"
    outbox = Outbox()

    @hookimpl
    def arc_observers(self, bus: Bus) -> list[Observer]:
        return []


@pytest.fixture
async def emitted() -> str:
    """The page of a bus that has done a little of everything."""
    recorder = Recorder()
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder, Store()])

    @bus.subscribe("work.do", group="g", retry=Retry(attempts=2, first=0.001))
    async def work(job: dict[str, object]) -> None:
        raise ValueError

    async with bus:
        await bus.publish("work.do", {})
        await recorder.ended("process work.do")
        for kind in NoticeKind:
            bus.report(Notice(kind=kind, transport="nats://localhost", pattern="work.do", count=1))
        Losses(recorder.registry).of("traces")(1, "queue_full")
        recorder.registry.gauge("arc.telemetry.queue", "{span}").put({}, Derived(lambda: 0))
        await Backlog(recorder.registry, bus, destinations_of(bus, recorder.settings)).ask()
    failed = recorder.registry.counter("messaging.client.sent.messages").cells
    assert failed
    return exposition(recorder.registry)


def expressions() -> Iterator[tuple[str, str]]:
    board = json.loads((FILES / "arc-bus.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for line in (FILES / "alerts.yaml").read_text().splitlines():
        if line.strip().startswith("expr: "):
            yield "alert", line.partition("expr: ")[2]


async def test_dashboard_and_alerts_ask_for_metrics_and_labels_that_exist(emitted: str) -> None:
    names = set(re.findall(r"^([a-z_]+)(?:\{|\s)", emitted, re.M))
    labels = set(re.findall(r'([a-z_]+)="', emitted))
    found = list(expressions())
    assert len(found) > 25
    for title, expression in found:
        asked: set[str] = set()
        for by, braces in _BY.findall(expression):
            asked |= {name.strip() for name in by.split(",") if name.strip()}
            asked |= set(re.findall(r"([a-z_]+)\s*[!=]", braces))
        assert asked <= labels, f"{title}: no metric has the labels {sorted(asked - labels)}"
        metrics = set(_METRIC.findall(_BY.sub("", expression)))
        assert metrics, title
        assert metrics <= names, f"{title}: nothing emits {sorted(metrics - names)}"


async def test_every_metric_of_the_documentation_is_emitted(emitted: str) -> None:
    names = set(re.findall(r"^# TYPE (\S+)", emitted, re.M))
    told = {name_of(each.name, each.unit, Kind(each.kind)) for each in INSTRUMENTS}
    assert told - names == set()


async def test_legends_and_summaries_name_labels_that_exist(emitted: str) -> None:
    labels = set(re.findall(r'([a-z_]+)="', emitted))
    text = (FILES / "arc-bus.json").read_text() + (FILES / "alerts.yaml").read_text()
    told = set(_FUNCTION_OF_LABELS.findall(text))
    assert told
    assert told <= labels


def test_the_dashboard_has_what_grafana_needs() -> None:
    board = json.loads((FILES / "arc-bus.json").read_text())
    assert board["schemaVersion"] >= 39
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]}
    assert len(places) == len(board["panels"])
    assert {p["datasource"]["uid"] for p in board["panels"]} == {"${datasource}"}
    assert board["templating"]["list"][0]["name"] == "datasource"
