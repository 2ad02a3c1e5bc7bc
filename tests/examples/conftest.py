"""Makes `voice` and `stage` importable, as they are for `python examples/voice_turn.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
