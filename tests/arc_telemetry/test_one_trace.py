"""A voice turn over NATS, Pulsar and PostgreSQL by three processes is one trace.

Once as a receiver in this process gets it, and once as the OpenTelemetry Collector hands it on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from arc_bus.servers import NatsServer, PostgresServer, PulsarLiteServer, PulsarServer
from arc_telemetry.receiver import Receiver
from arc_telemetry.seen import SeenSpan
from arc_telemetry.waterfall import as_text

SERVICES = """
import asyncio, logging, os, sys
from arc_bus import Bus
from arc_store import Conversation, Store
from arc_telemetry import Settings, Telemetry

ask, tell, keep = (os.environ[name] for name in ("ASK", "TELL", "KEEP"))
routes = {"agent.": os.environ["NATS"], "dead.": os.environ["NATS"],
          "persistent://": os.environ["PULSAR"]}
telemetry = Telemetry(settings=Settings(logs=True))
log = logging.getLogger("turn")

async def scarlett():
    bus = Bus("scarlett", routes=routes, plugins=[telemetry])
    async with bus:
        with telemetry.trace_span("voice turn"):
            answer = await bus.request(ask, {"user_input": "my secret is blue"}, dict, timeout=20)
            await bus.publish(tell, {"text": answer["agent_response"]})
            log.warning("told")
        print(telemetry.on, flush=True)

async def sherlock():
    bus = Bus("sherlock", routes=routes, plugins=[telemetry])

    @bus.subscribe(ask, group="sherlock_workers")
    async def reason(request: dict) -> dict:
        async with telemetry.trace_span("reason"):
            log.warning("reasoning")
            await bus.publish(keep, {"said": request["user_input"]}, key="user-1")
        return {"agent_response": "I know"}

    await serve(bus)

async def keeper():
    bus = Bus("keeper", routes=routes,
              plugins=[telemetry, Store(os.environ["DATABASE"], migrate=True)])

    @bus.subscribe(keep, group="keepers")
    async def save(turn: dict, store: Store) -> None:
        log.warning("saving")
        await store.conversations.save(Conversation(
            user_id="user-1", session_id="s", turn_index=0,
            user_input=turn["said"], agent_response="I know"))

    @bus.subscribe(tell)
    async def hear(heard: dict) -> None: ...

    await serve(bus)

async def serve(bus):
    async with bus:
        print("up", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run({"scarlett": scarlett, "sherlock": sherlock, "keeper": keeper}[sys.argv[1]]())
"""


async def start(service: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICES, service, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


async def finish(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(30):
        assert await process.wait() == 0


@pytest.fixture(params=["receiver", "collector"])
def way(request: pytest.FixtureRequest, behind: Receiver) -> tuple[str, Receiver]:
    """Where the services send to, and what gets it in the end."""
    if request.param == "receiver":
        return behind.endpoint, behind
    endpoint, _ = request.getfixturevalue("collector")
    return endpoint, behind


async def play(environment: dict[str, str], receiver: Receiver) -> None:
    """Run the three services for one turn, until each has told all and ended by itself."""
    others = [await start(name, environment) for name in ("sherlock", "keeper")]
    assert [await said(process) for process in others] == ["up", "up"]
    scarlett = await start("scarlett", environment)
    assert await said(scarlett) == "True"
    last = {"INSERT agents.conversations", "reason"}
    await receiver.wait_for(lambda r: last <= {span.name for span in r.spans}, 30)
    for process in (scarlett, *others):
        await finish(process)
    services = {"scarlett", "sherlock", "keeper"}
    await receiver.wait_for(
        lambda r: (
            services <= {str(point.resource["service.name"]) for point in r.points}
            and services <= {str(log.resource["service.name"]) for log in r.logs}
        ),
        30,
    )


@pytest.mark.timeout(1020)  # of which the collector's first build may take 900
async def test_a_turn_is_one_trace_with_the_right_parents_and_links(
    way: tuple[str, Receiver],
    nats_server: NatsServer,
    pulsar_server: PulsarServer | PulsarLiteServer,
    postgres_server: PostgresServer,
    unique: Callable[..., str],
) -> None:
    endpoint, receiver = way
    root = Path(__file__).parents[2]
    database = postgres_server.create_database(unique())
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root / 'plugins'}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NATS": nats_server.url,
        "PULSAR": pulsar_server.url,
        "DATABASE": database.replace("postgresql://", "postgresql+psycopg://"),
        "ASK": f"agent.{unique()}.ask",
        "TELL": f"agent.{unique()}.tell",
        "KEEP": f"persistent://arc/events/{unique()}",
    }
    await play(environment, receiver)
    turn = next(span for span in receiver.spans if span.name == "voice turn")
    trace = receiver.trace(turn.trace_id)
    check_spans(turn, trace)
    by_service = {str(log.resource["service.name"]): log for log in receiver.logs if log.trace_id}
    inside = {(span.service, span.span_id): span.name.split()[0] for span in trace}
    told = {service: inside[service, log.span_id] for service, log in by_service.items()}
    assert told == {"scarlett": "voice", "sherlock": "reason", "keeper": "process"}
    assert {log.trace_id for log in by_service.values()} == {turn.trace_id}
    handled = {
        str(point.resource["service.name"])
        for point in receiver.points
        if point.name == "messaging.process.duration" and point.count
    }
    assert handled == {"sherlock", "keeper"}
    asked = [p for p in receiver.points if p.name == "messaging.client.operation.duration"]
    assert {"scarlett", "sherlock"} <= {str(p.resource["service.name"]) for p in asked if p.count}
    assert "secret" not in repr((receiver.spans, receiver.points, receiver.logs))


def check_spans(turn: SeenSpan, trace: Sequence[SeenSpan]) -> None:
    by_kind = {(span.service, span.kind, span.name.split()[0]): span for span in trace}
    asked = by_kind["scarlett", "client", "request"]
    answered = by_kind["sherlock", "server", "process"]
    reasoned = by_kind["sherlock", "internal", "reason"]
    kept = by_kind["sherlock", "producer", "publish"]
    inserted = by_kind["keeper", "client", "INSERT"]
    saved = next(s for s in trace if s.links and s.links[0] == (kept.trace_id, kept.span_id))
    told = by_kind["scarlett", "producer", "publish"]
    drawn = as_text(trace)
    for child, parent in (
        (asked, turn),
        (answered, asked),
        (reasoned, answered),
        (kept, reasoned),
        (inserted, saved),
        (told, turn),
    ):
        assert child.parent_id == parent.span_id, drawn
    processed = {s.links[0]: s for s in trace if s.name.startswith("process")}
    assert processed[kept.trace_id, kept.span_id].parent_id == kept.span_id
    assert processed[told.trace_id, told.span_id].parent_id == told.span_id
    assert (asked.attributes["messaging.system"], kept.attributes["messaging.system"]) == (
        "nats",
        "pulsar",
    )
    assert saved.attributes["messaging.destination.subscription.name"] == "keepers"
    assert inserted.attributes["db.system.name"] == "postgresql"
    assert {span.service for span in trace} == {"scarlett", "sherlock", "keeper"}
    assert not any(span.status == "error" for span in trace), drawn
