"""A stand-in for a speech synthesiser: it makes no sound, and tells how long the sound would be."""

from __future__ import annotations

import re
from pathlib import Path

VOICE = "stand-in-en-gb"

_MS_A_SYLLABLE = 180
_LONGEST_GUESS = 16
"""Letters of a word that the stand-in pronounces by rule; a longer one must be in the lexicon."""


class Unpronounceable(Exception):
    """The text has words that are too long to be guessed, and not in the lexicon."""


def speak(text: str, lexicon: Path) -> int:
    """Return how many milliseconds it takes to say `text`. Raises Unpronounceable."""
    unknown = unknown_words(text, lexicon)
    if unknown:
        raise Unpronounceable(f"{', '.join(unknown)}: not in {lexicon.name}")
    return _MS_A_SYLLABLE * sum(_syllables(word) for word in _words(text))


def unknown_words(text: str, lexicon: Path) -> list[str]:
    """Return the words of `text` that cannot be spoken; the lexicon has one word a line."""
    long = [word for word in _words(text) if len(word) > _LONGEST_GUESS]
    known = lexicon.read_text(encoding="utf-8").split() if long and lexicon.exists() else []
    return [word for word in dict.fromkeys(long) if word not in known]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def _syllables(word: str) -> int:
    return max(1, len(re.findall(r"[aeiouy]+", word.lower())))
