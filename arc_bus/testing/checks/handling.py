"""E, and what belongs to it: a handler on a bus means the same on every transport."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from arc_bus.envelope import Envelope
from arc_bus.errors import PublishRejected, RemoteError
from arc_bus.message import Message
from arc_bus.notice import Notice, NoticeKind
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import BROWSE, GROUPS, NACK, REDELIVERY, REQUEST_REPLY, SURVIVES_CLIENT
from arc_bus.testing.scene import Scene, Work
from arc_bus.testing.wrapper import Wrapped
from arc_bus.transport import Outgoing


@check("E1")
async def a_failing_handler(lab: Lab) -> None:
    """E1: What fails is tried as often as its policy says; what does not is handled meanwhile."""
    attempts: list[int] = []
    async with Scene(lab) as scene:

        async def handler(work: Work, message: Message) -> None:
            if work.number == 3:
                attempts.append(message.attempt)
                raise RuntimeError("on purpose")
            await scene.note(work)

        async with scene.service(handler):
            await scene.publish(*range(10))
            await scene.all_handled(*(set(range(10)) - {3}))
            await lab.until(lambda: scene.told(NoticeKind.DEAD_LETTERED) > 0, lambda: "no end came")
    lab.expect(attempts == [1, 2, 3], f"of 3 attempts these were made: {attempts}")
    lab.expect(
        scene.told(NoticeKind.DEAD_LETTERED) == 1,
        f"{scene.told(NoticeKind.DEAD_LETTERED)} dead letters of one message",
    )


@check("E2")
async def a_failing_observer(lab: Lab) -> None:
    """E2: An observer that raises keeps no message from being handled, or from its end."""

    def fail(_notice: Notice) -> None:
        raise RuntimeError("the observer, on purpose")

    async with Scene(lab) as scene:

        async def handler(work: Work) -> None:
            if work.number == 0:
                raise RuntimeError("on purpose")
            await scene.note(work)

        bus = lab.bus()
        bus.observe(fail)
        scene.serve(bus, handler)
        async with bus:
            await scene.publish(*range(5))
            await scene.all_handled(*range(1, 5))
            await lab.until(lambda: scene.told(NoticeKind.DEAD_LETTERED) > 0, lambda: "no end came")


@check("E4", REDELIVERY, GROUPS, BROWSE)
async def a_dead_letter(lab: Lab) -> None:
    """E4: A dead letter is its original and the reason; the original comes to nobody any more."""
    bodies: list[bytes] = []

    async def handler(_work: Work, message: Message) -> None:
        bodies.append(message.delivery.body)
        raise LookupError("no such thing")

    async with Scene(lab) as scene:
        async with scene.service(handler) as bus:
            await scene.publisher.publish(
                scene.subject, Work(1), message_id="dead-1", headers={"x-colour": "red"}
            )
            await lab.until(lambda: scene.told(NoticeKind.DEAD_LETTERED) > 0, lambda: "no end came")
            kept = [entry async for entry in lab.letters(bus, scene.dead)]
        lab.expect(len(kept) == 1, f"{len(kept)} dead letters of one message")
        entry = kept[0]
        found = (entry.body, entry.headers.get("x-colour"), entry.message_id, entry.destination)
        lab.expect(
            found == (bodies[0], "red", "dead-1", scene.subject),
            f"the original came back as {found}",
        )
        reason = (entry.error, entry.text, entry.attempts)
        lab.expect(reason == ("LookupError", "no such thing", 3), f"its reason is {reason}")
        async with scene.service(scene.note):
            await scene.publish(7)
            await scene.all_handled(7)
            await lab.quiet()
    lab.expect(scene.handled == [7], "what is a dead letter came again")


class _Refusing(Wrapped):
    """Cannot publish to one destination."""

    refused = ""

    async def publish(self, outgoing: Outgoing) -> None:
        if outgoing.destination == self.refused:
            raise PublishRejected("refused on purpose")
        await self.inner.publish(outgoing)


@check("E4b", SURVIVES_CLIENT, REDELIVERY, GROUPS, NACK)
async def a_dead_letter_that_cannot_be_published(lab: Lab) -> None:
    """E4b: What cannot be published as a dead letter is not settled: it comes after a restart."""
    tried = asyncio.Event()
    async with Scene(lab) as scene:

        async def handler(_work: Work) -> None:
            tried.set()
            raise RuntimeError("on purpose")

        refusing = _Refusing(lab.connect())
        refusing.refused = scene.dead
        bus = lab.bus(refusing)
        scene.serve(bus, handler)
        async with bus:
            await scene.publish(1)
            async with asyncio.timeout(lab.timings.arrive):
                await tried.wait()
            await lab.until(
                lambda: scene.told(NoticeKind.ERROR) > 0, lambda: "nothing was reported"
            )
        async with scene.service(scene.note):
            await scene.all_handled(1)
    lab.expect(scene.told(NoticeKind.DEAD_LETTERED) == 0, "it was reported as a dead letter")


@check("O5")
async def lanes(lab: Lab) -> None:
    """O5: With order_by, messages of equal key are handled one after another, also over retries."""
    running: set[str] = set()
    overlaps: list[str] = []
    seen: dict[str, list[int]] = defaultdict(list)
    async with Scene(lab) as scene:

        async def handler(work: Work, message: Message) -> None:
            if work.key in running:
                overlaps.append(work.key)
            running.add(work.key)
            await asyncio.sleep(0)
            running.discard(work.key)
            if message.attempt == 1 and work.number % 3 == 0:
                raise RuntimeError("on purpose, once")
            seen[work.key].append(work.number)
            await scene.note(work)

        async with scene.service(handler, order_by="key", concurrency=16):
            for number in range(60):
                work = Work(number, f"key-{number % 5}")
                await scene.publisher.publish(scene.subject, work, key=work.key)
            await scene.all_handled(*range(60))
    lab.expect(not overlaps, f"two messages of {overlaps[:1]} ran at the same time")
    turned = {key: got for key, got in seen.items() if got != sorted(got)}
    lab.expect(not turned, f"out of turn: {turned}")


@check("C6b")
async def an_event_arrives_whole(lab: Lab) -> None:
    """C6b: Id, key, trace, publisher, time and headers of an event reach the handler."""
    got: list[Envelope[Work]] = []
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with Scene(lab) as scene:

        async def handler(event: Envelope[Work]) -> None:
            got.append(event)
            lab.changed()

        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-empty": ""}
        async with scene.service(handler):
            await scene.publisher.publish(
                scene.subject, Work(1, "k"), key="k", message_id="Event:1", headers=headers
            )
            await lab.until(lambda: bool(got), lambda: "the event did not arrive")
    event = got[0]
    found = (event.message_id, event.key, event.service, event.payload)
    lab.expect(
        found == ("Event:1", "k", "conformance", Work(1, "k")), f"the event arrived as {found}"
    )
    lab.expect(event.timestamp.endswith("Z"), f"published at {event.timestamp!r}")
    kept = {name: event.headers.get(name) for name in headers}
    lab.expect(kept == headers, f"its headers arrived as {kept}")


@check("Q5", REQUEST_REPLY)
async def an_error_reaches_the_requester(lab: Lab) -> None:
    """Q5: What a handler raises reaches the requester at once, by its name; it is not retried."""
    attempts: list[int] = []
    async with Scene(lab) as scene:

        async def handler(work: Work, message: Message) -> Work:
            attempts.append(message.attempt)
            if work.number < 0:
                raise LookupError(f"no {work.number}")
            return Work(work.number + 1)

        async with scene.service(handler):
            patience = lab.timings.arrive
            answer = await scene.publisher.request(scene.subject, Work(1), Work, timeout=patience)
            lab.expect(answer == Work(2), f"the answer was {answer}")
            try:
                await scene.publisher.request(scene.subject, Work(-1), Work, timeout=patience)
            except RemoteError as error:
                told = (error.type, error.message, error.retryable)
            else:
                raise NotConforming("a handler raised, and the requester got an answer")
    lab.expect(told == ("LookupError", "no -1", True), f"the requester was told {told}")
    lab.expect(attempts == [1, 1], f"two requests were begun on {attempts}")
    lab.expect(not scene.told(NoticeKind.DEAD_LETTERED), "a request became a dead letter")
