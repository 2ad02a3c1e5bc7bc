"""What every server has in common: start, wait until it answers, kill, restart, pause, stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from arc_bus.servers.error import ServerError
from arc_bus.servers.ports import Port

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_POLL = 0.02  # seconds between two questions "are you ready?"
_GRACE = 10.0  # seconds that a server gets to end by itself


class Server(ABC):
    """A real server on 127.0.0.1, in a process of its own, with a data folder of its own.

    It runs once constructed by one of the functions of `arc_bus.servers`, and ends with `stop()`,
    at the end of a `with` block, or with this process, even when that is killed by SIGKILL.
    Every method blocks (milliseconds; Pulsar's start takes 7 to 12 s): from a coroutine, call it by
    `asyncio.to_thread`. Not safe to use from two threads at once.

    Attributes:
        folder: the server's folder; a temporary one is removed by `stop()`.
        log: the file with everything that the server printed, over all restarts.
        port: where clients connect.
    """

    kind: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # What ends it when its data will be removed: nothing needs saving, so the quickest will do.
    _last_signal: ClassVar[signal.Signals] = signal.SIGKILL
    _deadline: ClassVar[float] = 30.0  # seconds from start to ready

    def __init__(self, folder: Path | None, port: int | None) -> None:
        """Reserve the port and make the folder; nothing runs yet."""
        self._port = Port(port)
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"arc-{self.kind}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "server.log"
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._stopped = False

    @property
    def port(self) -> int:
        """The TCP port for clients; the same over restarts."""
        return self._port.number

    @property
    @abstractmethod
    def url(self) -> str:
        """The address to give to a client."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program and its arguments."""

    @abstractmethod
    def _ready(self) -> bool:
        """Ask the server once whether it serves; an OSError counts as not yet."""

    def _spent(self, began: float) -> float:
        """Return how much of its deadline a start has used that began at `began`."""
        return time.monotonic() - began

    def _user(self) -> tuple[int, int] | None:
        """Return user and group number to run as; None for those of this process."""
        return None

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerError while it does not run."""
        if not self.alive:
            raise ServerError(f"{self.kind} does not run; call restart()")
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        """Return the last `lines` lines that the server printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def start(self) -> None:
        """Start the server; return once it answers.

        Raises ServerError, with the end of the log, if it ends or does not answer in time; it does
        not run then, but its folder is still there to look at.
        """
        if self._stopped:
            raise ServerError(
                f"this {self.kind} was stopped for good and its data removed; make a new one"
            )
        if self.alive:
            raise ServerError(f"this {self.kind} runs already (process {self._pid})")
        began = time.monotonic()
        self._launch()
        while not self._answers():
            if self._ends_within(_POLL):
                raise self._failure("ended while it was starting")
            if self._spent(began) > self._deadline:
                self.kill()
                raise self._failure(f"did not answer within {self._deadline:.0f} s")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); the data stay. Returns when it is dead."""
        self._end(signal.SIGKILL)

    def halt(self) -> None:
        """End it in good order, within 10 s, else by SIGKILL; the data stay."""
        self._end(self._stop_signal)

    def restart(self) -> None:
        """Start it again on the same port and data; if it runs, `halt()` it before."""
        self.halt()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open; nothing answers once it returns."""
        os.killpg(self.pid, signal.SIGSTOP)
        # The signal is on its way to each thread: one that runs at this moment answers yet.
        deadline = time.monotonic() + 1.0
        while not _stopped(self.pid) and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        """Undo `pause()`."""
        os.killpg(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it for good, give back its port and remove a temporary folder. Safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self._end(self._last_signal if self._temporary else self._stop_signal)
        finally:
            self._release()
            if self._temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _release(self) -> None:
        self._port.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        order = {
            "argv": self._command(),
            "log": str(self.log),
            "cwd": str(self.folder),
            "parent": os.getpid(),
            "user": self._user(),
            "last_signal": self._last_signal,
            "remove": str(self.folder) if self._temporary else None,
        }
        with self.log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        if not line:
            self._supervisor.wait()
            raise self._failure("could not be run")
        self._pid = int(line)

    def _answers(self) -> bool:
        try:
            return self._ready()
        except OSError:  # refused, reset, timed out: not up yet; start() has the deadline
            return False

    def _end(self, number: signal.Signals) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        try:
            supervisor.stdin.write(b"%d %f\n" % (number, _GRACE))
            supervisor.stdin.close()
        except BrokenPipeError:  # it ended by itself in this very moment: as wished
            pass
        try:
            supervisor.wait(_GRACE + 5)
        except subprocess.TimeoutExpired:
            supervisor.kill()  # which kills the server too, on Linux
            supervisor.wait()
            raise self._failure(f"could not be ended with {number.name}") from None
        finally:
            supervisor.stdout.close()
            self._supervisor = None

    def _ends_within(self, seconds: float) -> bool:
        assert self._supervisor is not None
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _failure(self, what: str) -> ServerError:
        return ServerError(
            f"{self.kind} on port {self.port} {what}. The end of its log:\n{self.log_tail()}"
        )


_AnyServer = TypeVar("_AnyServer", bound=Server)


def started(server: _AnyServer) -> _AnyServer:
    """Start `server` and return it; if that fails, leave nothing of it behind."""
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server


def http(
    method: str, url: str, body: bytes | None = None, *, timeout: float = 5.0
) -> tuple[int, bytes]:
    """Send one HTTP request to a server of ours; return the status and the body.

    A status of 400 and above is returned, not raised. Raises OSError if there is no answer within
    `timeout` seconds.
    """
    request = urllib.request.Request(url, data=body, method=method)
    request.add_header("Content-Type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _stopped(pid: int) -> bool:
    """Return whether no thread of a process runs any more; True where the system does not tell."""
    try:
        states = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has just ended
        return False
    return all(state.rpartition(")")[2].split()[0] in "TtXZ" for state in states)
