"""Waiting for what may not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(reached: Callable[[], bool], within: float) -> bool:
    """Wait until `reached`, looking fifty times a second; return whether it was, in time."""
    deadline = asyncio.get_running_loop().time() + within
    while not reached():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
