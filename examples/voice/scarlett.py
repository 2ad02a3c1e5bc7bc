"""arc-scarlett-voice: hears users, asks the brain, has the answer spoken, and sums up the call.

The microphone is a stand-in: each line of standard input is a `Call` in JSON. Calls of one user
are held one after another, those of different users at the same time, until the input ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec

from arc_bus import ArcBusError, Bus
from arc_bus.agent import AgentBus
from arc_bus.contracts import (
    BrainRequest,
    SessionEnded,
    SessionStarted,
    TrackPublished,
    TrackUnpublished,
    TtsCompleted,
    TtsRequest,
)
from arc_telemetry import Telemetry
from voice import places, speech
from voice.calls import Call
from voice.ledger import CallOver, Ledger, Turn, describe
from voice.measures import Room, session_metrics
from voice.service import instance

SPEECH_TIMEOUT = 2.0
"""Seconds after which a turn counts as not spoken; a turn is no use to a user later than that."""


class Scarlett:
    """Holds calls on a bus, and knows which of her turns wait for their sound."""

    def __init__(self, bus: Bus, telemetry: Telemetry, ledger: Ledger) -> None:
        """Subscribe to what piper says; without a group, for each copy has turns of its own."""
        self._agent = AgentBus(bus)
        self._telemetry = telemetry
        self._ledger = ledger
        self._silent: dict[str, asyncio.Future[TtsCompleted]] = {}
        self._on_the_line: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        bus.subscribe("agent.tts.completed", self.on_speech)

    async def on_speech(self, event: TtsCompleted) -> None:
        """Wake the turn that waits for this sound, if it is one of ours and still waits."""
        waiting = self._silent.get(event.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(event)

    async def take(self, call: Call) -> None:
        """Hold the call, after the ones that its user has on the line already."""
        async with self._on_the_line[call.user_id]:
            error = ""
            try:
                await self._hold(call)
            except ArcBusError as failure:  # nothing more can be said in this call
                error = describe(failure)
            self._ledger.write(CallOver(call.user_id, error))

    async def _hold(self, call: Call) -> None:
        room = Room(call.user_id)
        await self._open(room)
        turns: list[Turn] = []
        for said in call.utterances:
            turns.append(await self._turn(room, len(turns), said))
            self._ledger.write(turns[-1])
            if turns[-1].error:
                break
        await self._close(room, turns)

    async def _turn(self, room: Room, index: int, said: str) -> Turn:
        """Return how it went; whatever may fail in one turn is told in its `error`."""
        began = time.perf_counter()
        answer, error, spoken = "", "", False
        with self._telemetry.trace_span("voice turn"):
            trace_id = self._telemetry.get_trace_context().get("trace_id", "")
            try:
                answer = await self._ask(room, index, said)
                spoken = await self._say(room, answer)
            except ArcBusError as failure:
                error = describe(failure)
        seconds = time.perf_counter() - began
        return Turn(room.user_id, said, answer, seconds, spoken, trace_id, error)

    async def _ask(self, room: Room, index: int, said: str) -> str:
        request = BrainRequest(
            request_id=str(uuid4()),
            user_id=room.user_id,
            session_id=room.session_id,
            conversation_id=room.session_id,
            turn_index=index,
            user_input=said,
        )
        return (await self._agent.request_brain(request, timeout=5.0)).agent_response

    async def _say(self, room: Room, text: str) -> bool:
        """Have `text` spoken; False if no sound comes in time."""
        request_id = str(uuid4())
        sound: asyncio.Future[TtsCompleted] = asyncio.get_running_loop().create_future()
        self._silent[request_id] = sound
        try:
            await self._agent.publish_tts_request(
                TtsRequest(
                    request_id=request_id,
                    text=text,
                    voice_id=speech.VOICE,
                    session_id=room.session_id,
                    target_room=room.name,
                )
            )
            async with asyncio.timeout(SPEECH_TIMEOUT):
                return (await sound).ready_for_playback
        except TimeoutError:
            return False
        finally:
            del self._silent[request_id]

    async def _open(self, room: Room) -> None:
        await self._agent.publish_session_started(
            SessionStarted(
                user_id=room.user_id,
                session_id=room.session_id,
                room_name=room.name,
                room_sid=room.sid,
                participant_sid=room.participant_sid,
            )
        )
        await self._agent.publish_track_published(
            TrackPublished(
                room_name=room.name,
                room_sid=room.sid,
                participant_sid=room.participant_sid,
                participant_identity=room.user_id,
                track_sid=room.track_sid,
                metadata={"user_id": room.user_id, "session_id": room.session_id},
            )
        )
        await self._agent.produce_audit_log(room.user_id, "session.open", room.session_id)

    async def _close(self, room: Room, turns: list[Turn]) -> None:
        metrics = session_metrics(room, turns)
        failed = any(turn.error for turn in turns)
        await self._agent.publish_track_unpublished(
            TrackUnpublished(
                room_name=room.name,
                participant_sid=room.participant_sid,
                track_sid=room.track_sid,
                reason="user_disconnected",
                duration_seconds=metrics.session.duration_seconds,
            )
        )
        await self._agent.publish_session_ended(
            SessionEnded(
                user_id=room.user_id,
                session_id=room.session_id,
                room_name=room.name,
                duration_seconds=metrics.session.duration_seconds,
                total_turns=len(turns),
                reason="agent_error" if failed else "user_left",
                final_status="error" if failed else "completed",
            )
        )
        await self._agent.produce_session_metrics(metrics)


async def microphone() -> AsyncIterator[Call]:
    """Yield the calls on standard input until it ends."""
    decode = msgspec.json.Decoder(Call).decode
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield decode(line)


async def main() -> None:
    """Take every call that comes; leave when the input has ended and the last call is over."""
    telemetry, ledger = Telemetry(), Ledger(places.folder())
    bus = Bus("arc-scarlett-voice", routes=places.routes(), plugins=[telemetry, ledger])
    scarlett = Scarlett(bus, telemetry, ledger)
    beating = AgentBus(bus).heartbeats(metrics=lambda: {"instance": instance()})
    async with bus, beating, asyncio.TaskGroup() as calls:
        async for call in microphone():
            calls.create_task(scarlett.take(call))


if __name__ == "__main__":
    asyncio.run(main())
