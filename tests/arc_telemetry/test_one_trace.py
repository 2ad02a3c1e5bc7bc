"""A voice turn over NATS, Pulsar and PostgreSQL by three processes is one trace."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from arc_bus.servers import NatsServer, PostgresServer, PulsarLiteServer, PulsarServer
from arc_telemetry.receiver import Receiver
from arc_telemetry.waterfall import as_text

SERVICES = """
import asyncio, os, sys
from arc_bus import Bus
from arc_store import Conversation, Store
from arc_telemetry import Telemetry

ask, tell, keep = (os.environ[name] for name in ("ASK", "TELL", "KEEP"))
routes = {"agent.": os.environ["NATS"], "dead.": os.environ["NATS"],
          "persistent://": os.environ["PULSAR"]}
telemetry = Telemetry()

async def scarlett():
    bus = Bus("scarlett", routes=routes, plugins=[telemetry])
    async with bus:
        with telemetry.trace_span("voice turn"):
            answer = await bus.request(ask, {"user_input": "my secret is blue"}, dict, timeout=20)
            await bus.publish(tell, {"text": answer["agent_response"]})
        print(telemetry.on, flush=True)

async def sherlock():
    bus = Bus("sherlock", routes=routes, plugins=[telemetry])

    @bus.subscribe(ask, group="sherlock_workers")
    async def reason(request: dict) -> dict:
        async with telemetry.trace_span("reason"):
            await bus.publish(keep, {"said": request["user_input"]}, key="user-1")
        return {"agent_response": "I know"}

    await serve(bus)

async def keeper():
    bus = Bus("keeper", routes=routes,
              plugins=[telemetry, Store(os.environ["DATABASE"], migrate=True)])

    @bus.subscribe(keep, group="keepers")
    async def save(turn: dict, store: Store) -> None:
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


async def test_a_turn_is_one_trace_with_the_right_parents_and_links(
    nats_server: NatsServer,
    pulsar_server: PulsarServer | PulsarLiteServer,
    postgres_server: PostgresServer,
    unique: Callable[..., str],
) -> None:
    root = Path(__file__).parents[2]
    database = postgres_server.create_database(unique()).replace("postgresql://", "postgresql+psycopg://")  # fmt: skip # noqa: E501
    ask, tell = f"agent.{unique()}.ask", f"agent.{unique()}.tell"
    keep = f"persistent://arc/events/{unique()}"
    async with Receiver() as receiver:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{root}:{root / 'plugins'}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "NATS": nats_server.url,
            "PULSAR": pulsar_server.url,
            "DATABASE": database,
            "ASK": ask,
            "TELL": tell,
            "KEEP": keep,
        }
        others = [await start(name, environment) for name in ("sherlock", "keeper")]
        assert [await said(process) for process in others] == ["up", "up"]
        scarlett = await start("scarlett", environment)
        assert await said(scarlett) == "True"
        await receiver.wait_for(lambda r: {"INSERT agents.conversations", "reason"} <= {s.name for s in r.spans}, 30)  # fmt: skip # noqa: E501
        await finish(scarlett)
        for process in others:
            await finish(process)
        turn = next(span for span in receiver.spans if span.name == "voice turn")
        trace = receiver.trace(turn.trace_id)
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
    assert "secret" not in repr(receiver.spans)
