"""arc-piper-tts: turns text into speech, and says when it can be heard.

A text with a word it cannot pronounce fails, is tried twice more, and becomes a dead letter that
can be replayed once the word is in the lexicon.
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from arc_bus import Bus, Retry
from arc_bus.agent import AgentBus
from arc_bus.contracts import TtsCompleted, TtsConstraints, TtsRequest
from arc_telemetry import Telemetry
from voice.ledger import Ledger
from voice.places import folder, routes
from voice.service import serve
from voice.speech import speak

bus = Bus("arc-piper-tts", routes=routes(), plugins=[Telemetry(), Ledger(folder())])
agent = AgentBus(bus)


@bus.subscribe("agent.tts.request", group="piper_workers", retry=Retry(attempts=3, first=0.05))
async def synthesise(request: TtsRequest) -> None:
    began = time.perf_counter()
    duration_ms = speak(request.text, folder() / "lexicon.txt")
    await agent.publish_tts_completed(
        TtsCompleted(
            request_id=request.request_id,
            audio_track_sid=f"TR_{uuid4().hex[:12]}",
            duration_ms=duration_ms,
            synthesis_latency_ms=round(1000 * (time.perf_counter() - began), 3),
            audio_format=(request.constraints or TtsConstraints()).format,
            ready_for_playback=True,
        )
    )


if __name__ == "__main__":
    asyncio.run(serve(bus))
