"""A stand-in for a language model: picks a sentence by a word of the question, and says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

MODEL = "stand-in-keywords"

_SENTENCES = {
    "weather": "Sunny and mild, with some wind from the west.",
    "rain": "A shower is likely around four.",
    "umbrella": "An umbrella would be wise.",
    "train": "There is one every hour, at twelve minutes past.",
    "timer": "The timer is set, and I will ring when it is over.",
    "list": "Your list is up to date.",
    "news": "Here are the headlines of this hour.",
    "election": "The votes are still being counted.",
    "jazz": "Playing jazz in the living room.",
    "remind": "I will remind you.",
}


def think(user_input: str, earlier: Sequence[str]) -> str:
    """Return an answer to `user_input` that refers to the nearest of the `earlier` utterances."""
    words = set(re.findall(r"\w+", user_input.lower()))
    found = [text for word, text in _SENTENCES.items() if word in words]
    answer = found[0] if found else f"You said: {user_input}"
    return f'{answer} Earlier you asked me: "{earlier[0]}"' if earlier else answer
