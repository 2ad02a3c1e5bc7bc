"""X and A on a bus: what becomes of messages that are being handled when it stops, or late."""

from __future__ import annotations

import asyncio

from arc_bus.bus import Bus
from arc_bus.notice import NoticeKind
from arc_bus.testing.check import check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import DEADLINE, EXTEND, GROUPS, NACK, REDELIVERY, SURVIVES_CLIENT
from arc_bus.testing.scene import Scene, Work


@check("X4b")
async def a_running_handler_ends_well(lab: Lab) -> None:
    """X4b: A handler that runs when its bus stops is not cancelled, and can still publish."""
    begun, go = asyncio.Event(), asyncio.Event()
    async with Scene(lab) as scene:
        answers = Scene(lab)

        async def handler(work: Work, bus: Bus) -> None:
            begun.set()
            await go.wait()
            await bus.publish(answers.subject, work)

        reader = lab.bus()
        answers.serve(reader, answers.note)
        async with reader, scene.service(handler) as bus:
            await scene.publish(1)
            async with asyncio.timeout(lab.timings.arrive):
                await begun.wait()
            closing = asyncio.create_task(bus.close(lab.timings.arrive))
            await lab.quiet()
            go.set()
            report = await closing
            await answers.all_handled(1)
    lab.expect(
        (report.finished, report.abandoned) == (1, 0),
        f"its handler could end, and it says {report}",
    )


@check("X5", REDELIVERY, GROUPS, NACK, SURVIVES_CLIENT)
async def nothing_starts_after_a_stop(lab: Lab) -> None:
    """X5: Once a stop has begun no handler starts; what waited is handled by the next, once."""
    begun, go = asyncio.Event(), asyncio.Event()
    async with Scene(lab) as scene:

        async def handler(work: Work) -> None:
            begun.set()
            await go.wait()
            await scene.note(work)

        async with scene.service(handler, concurrency=1, prefetch=20) as bus:
            await scene.publish(*range(10))
            async with asyncio.timeout(lab.timings.arrive):
                await begun.wait()
            closing = asyncio.create_task(bus.close(lab.timings.arrive))
            await lab.quiet()
            go.set()
            report = await closing
        lab.expect(len(scene.handled) == 1, f"{scene.handled} were handled, one was running")
        lab.expect(report.abandoned == 0, f"nothing was cut off, and it says {report}")
        async with scene.service(scene.note):
            await scene.all_handled(*range(10))


@check("X6", REDELIVERY, GROUPS, SURVIVES_CLIENT)
async def what_outlasts_the_grace(lab: Lab) -> None:
    """X6: What outlasts the grace is cancelled, comes again, and is neither failure nor dead."""
    begun, cancelled = asyncio.Event(), asyncio.Event()
    async with Scene(lab) as scene:

        async def handler(_work: Work) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with scene.service(handler) as bus:
            await scene.publish(1)
            async with asyncio.timeout(lab.timings.arrive):
                await begun.wait()
            report = await bus.close(0)
        lab.expect(cancelled.is_set(), "its handler was not cancelled")
        lab.expect(report.abandoned == 1, f"one message was cut off, and it says {report}")
        async with scene.service(scene.note):
            await scene.all_handled(1)
    lab.expect(scene.told(NoticeKind.DEAD_LETTERED) == 0, "a stop made a dead letter")
    lab.expect(scene.told(NoticeKind.RETRIED) == 0, "a stop was taken for a failure")


@check("A9c", REDELIVERY, GROUPS, DEADLINE, EXTEND)
async def a_slow_handler_runs_once(lab: Lab) -> None:
    """A9c: A handler that takes three ack deadlines runs once, and so does what waits behind it."""
    starts: list[int] = []
    deadline = lab.capabilities.ack_deadline or 0.0
    async with Scene(lab) as scene:

        async def handler(work: Work) -> None:
            starts.append(work.number)
            if work.number == 0:
                await asyncio.sleep(3 * deadline)
            await scene.note(work)

        async with scene.service(handler, concurrency=1):
            await scene.publish(*range(3))
            await lab.until(
                lambda: len(scene.handled) >= 3,
                lambda: f"of 3 messages {scene.handled} were handled",
                lab.timings.arrive + 4 * deadline,
            )
    lab.expect(starts == [0, 1, 2], f"three messages were begun on as {starts}")
