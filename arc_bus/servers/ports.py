"""Free TCP ports, for as long as a server (and its restarts) needs them."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO, Final

from arc_bus.servers.error import ServerError

# Below the range from which kernels hand out ports for outgoing connections (Linux: 32768 and up,
# macOS: 49152), so that no connection takes the port of a server which is down for a moment.
LOWEST: Final = 15000
HIGHEST: Final = 32000

_random = random.Random(os.urandom(8))  # not the global one: a test may have seeded it


class Port:
    """A port number on 127.0.0.1 that no other `arc_bus.servers` on this machine will take.

    Asking the kernel for a free port and letting go of it, as is usual, hands the same number to
    two test runs now and then. So the number is also locked, by a lock that ends with the process.
    """

    def __init__(self, number: int | None = None) -> None:
        """Take `number`, or any free one. Raises ServerError if it is in use."""
        self.number, self._lock = _any() if number is None else _exactly(number)

    def release(self) -> None:
        """Give the port back. Safe to call twice."""
        self._lock.close()


def _any() -> tuple[int, IO[bytes]]:
    for _ in range(500):
        number = _random.randrange(LOWEST, HIGHEST)
        lock = _take(number)
        if lock is not None:
            return number, lock
    raise ServerError(
        f"no free port found between {LOWEST} and {HIGHEST}: is something leaking them?"
    )


def _exactly(number: int) -> tuple[int, IO[bytes]]:
    lock = _take(number)
    if lock is None:
        raise ServerError(f"port {number} is in use; end what uses it, or leave the port out")
    return number, lock


def _take(number: int) -> IO[bytes] | None:
    folder = Path(tempfile.gettempdir()) / f"arc-bus-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = (folder / str(number)).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            # As servers do: connections of an earlier run that linger in TIME_WAIT are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", number))
    except OSError:  # locked by another of us, or bound by somebody else: taken either way
        lock.close()
        return None
    return lock
