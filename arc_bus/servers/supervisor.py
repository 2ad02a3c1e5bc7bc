"""The process between us and a server: it ends the server when we end, however we end.

Run as a script (`python -I supervisor.py JSON`), never imported, and stdlib only. Why a process and
not `preexec_fn` with `PR_SET_PDEATHSIG`: that signal follows the *thread* which forked (a server
started from `asyncio.to_thread` would die with the thread), it does not exist on macOS, and running
Python between fork and exec is unsafe beside a client library's threads. Here there is one thread.

It speaks with its parent over two pipes: on stdout it writes the server's process id and a newline,
then it waits for the first of

- the server ended by itself: leave, with the server's exit code (128 + signal when one killed it);
- a line on stdin, `SIGNAL GRACE`: end the server with that signal, after so many seconds with
  SIGKILL, and leave; the data folder stays;
- end of file on stdin, or the parent process gone: end the server, remove its temporary folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import TypedDict

_PR_SET_PDEATHSIG = 1
_ORPHAN_GRACE = 3.0  # seconds


class Order(TypedDict):
    """What to run; `servers.process.Server` writes it, as JSON, into the only argument."""

    argv: list[str]
    log: str
    cwd: str
    parent: int
    user: tuple[int, int] | None  # user and group number to run as, None for our own
    last_signal: (
        int  # ends it when the parent died without a word: SIGKILL, where that leaves nothing
    )
    remove: str | None  # the folder to delete then


def _die_with_supervisor() -> None:
    # Should somebody kill -9 this very process, Linux ends the server. Elsewhere nothing can.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _start(order: Order) -> subprocess.Popen[bytes]:
    user, group = order["user"] or (None, None)
    with open(order["log"], "ab") as log:
        return subprocess.Popen(
            order["argv"],
            cwd=order["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Its own group: Ctrl-C in a terminal must not reach it before the tests' clean-up.
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            preexec_fn=_die_with_supervisor if sys.platform == "linux" else None,
        )


def _kill_group(server: subprocess.Popen[bytes]) -> None:
    # The group, so that what the server started (PostgreSQL's workers) goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def _end(server: subprocess.Popen[bytes], number: int, grace: float) -> None:
    server.send_signal(number)
    server.send_signal(signal.SIGCONT)  # a stopped process sees no signal but SIGKILL
    with contextlib.suppress(subprocess.TimeoutExpired):  # then SIGKILL, next line, is the answer
        server.wait(grace)
    _kill_group(server)
    server.wait()


def _parent_handle(parent: int) -> int | None:
    """Return a descriptor that becomes readable when the parent ends, or None: not on this system.

    The pipe alone would not do: a process forked by the parent keeps the pipe open after it.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(parent)
    except OSError:
        return None


def _heed_not(number: int, frame: object) -> None:
    """Do nothing. A signal with a handler writes to the wake-up descriptor all the same."""


def _await_end(server: subprocess.Popen[bytes], parent: int) -> tuple[str, str]:
    """Return why to leave, `ended`, `told` or `orphan`, and what we were told."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, _heed_not)
    handle = _parent_handle(parent)
    watched = [0, wake_read] + ([] if handle is None else [handle])
    while True:
        if server.poll() is not None:
            return "ended", ""
        if os.getppid() != parent:
            return "orphan", ""
        readable, _, _ = select.select(watched, [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
        if 0 in readable:
            told = os.read(0, 4096).decode()
            return ("told", told) if told else ("orphan", "")
        if handle in readable:
            return "orphan", ""


def main(order: Order) -> int:
    """Run the server to its end; return the exit code that tells how that came."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _heed_not)  # not SIG_IGN, which the server would inherit
    server = _start(order)
    # The parent may have died already; it is then `orphan`, which is what _await_end will say.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % server.pid)
    reason, told = _await_end(server, order["parent"])
    if reason == "told":
        stop_signal, grace = told.split()
        _end(server, int(stop_signal), float(grace))
        return 0
    if reason == "orphan":
        _end(server, order["last_signal"], _ORPHAN_GRACE)
        if order["remove"] is not None:
            shutil.rmtree(order["remove"], ignore_errors=True)
    _kill_group(server)
    code = server.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
