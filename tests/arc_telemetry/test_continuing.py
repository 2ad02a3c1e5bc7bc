"""A trace goes on through the outbox, the dead letters and their replay."""

from __future__ import annotations

import asyncio
from pathlib import Path

from arc_bus import Bus, Envelope, Retry
from arc_store import Store
from arc_telemetry.testing import Recorder


async def test_outbox_dead_letter_and_replay_stay_in_the_trace_of_the_publisher(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}", migrate=True)
    bus = Bus("svc", routes={"": "memory://"}, plugins=[recorder, store])
    mended = False
    buried: asyncio.Queue[str] = asyncio.Queue()

    @bus.subscribe("work.do", group="workers", retry=Retry(attempts=2, first=0.001))
    async def work(job: dict[str, int]) -> None:
        if not mended:
            raise ValueError

    @bus.subscribe("dead.work.do", group="morgue")
    async def bury(dead: Envelope[dict[str, int]]) -> None:
        buried.put_nowait(dead.headers["traceparent"])

    async with bus:
        with recorder.trace_span("turn"):
            async with store.transaction() as transaction:
                await bus.publish("work.do", {"n": 1}, session=transaction)
        await recorder.ended("process work.do")
        await recorder.ended("process dead.work.do")
        letters = bus.dead_letters("work.do")
        [letter] = await letters.list()
        mended = True
        await letters.replay(letter)
        await recorder.ended("process work.do", 2)
    sent = recorder.span("publish work.do")
    failed, replayed = recorder.named("process work.do")
    dead = recorder.span("process dead.work.do")
    assert recorder.parent(sent).name == "turn"
    assert (failed.status, replayed.status) == ("error", "unset")
    assert {span.trace_id for span in recorder.spans} == {sent.trace_id}
    for handled in (failed, dead, replayed):
        assert recorder.parent(handled) == sent
        assert handled.links == ((sent.trace_id, sent.span_id),)
    assert buried.get_nowait() == f"00-{sent.trace_id}-{sent.span_id}-01"
