"""Two Pulsars: Apache Pulsar 4.0.8 standalone from Maven Central, and `pulsar-lite` from its wheel.

The recipe of the first: the Maven project beside this file names the jars, `fetch_pulsar` copies
them into the user's cache once, and `pulsar_server` runs them on one JVM. pulsar-lite speaks the
same protocol and needs no Java; it has no admin REST API, regex subscriptions, delayed delivery,
deduplication, partitions or seek to the earliest message.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from arc_bus.servers.error import ServerError
from arc_bus.servers.ports import Port
from arc_bus.servers.process import Server, http, started

VERSION = "4.0.8"
_POM = Path(__file__).with_name("pulsar_pom.xml")
_REMEDY = "python -m arc_bus.servers fetch-pulsar   (in a checkout: make servers)"

# What Pulsar and Netty reach for inside the JDK; without these the JVM refuses it.
_OPENS = (
    "java.base/java.lang",
    "java.base/java.nio",
    "java.base/jdk.internal.misc",
    "java.base/sun.net",
    "java.management/sun.management",
    "jdk.management/com.sun.management.internal",
    "java.base/jdk.internal.platform",
)

# Without its optimising compiler a JVM starts at half the price, which tests never earn back.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_PATIENCE = 5
"""How many seconds may pass for each that the processor gives it."""

_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class PulsarServer(Server):
    """An Apache Pulsar 4.0.8 standalone: broker, bookie and metadata store in one JVM."""

    kind: ClassVar[str] = "pulsar"
    _deadline: ClassVar[float] = 90.0

    def __init__(
        self,
        *,
        settings: dict[str, str] | None,
        port: int | None,
        folder: Path | None,
        optimised: bool = False,
    ) -> None:
        """Write its configuration; `pulsar_server` starts it."""
        reason = why_not()
        if reason:
            raise ServerError(reason)
        super().__init__(folder, port)
        self._java = () if optimised else _QUICK
        self._web = Port()
        # Its own choice would be one that any connection of this machine may hold at a restart.
        self._bookie = Port()
        configuration = self._configuration() | (settings or {})
        lines = [f"{name}={value}\n" for name, value in configuration.items()]
        (self.folder / "standalone.conf").write_text("".join(lines))
        (self.folder / "log4j2.properties").write_text(_LOGGING)

    @property
    def url(self) -> str:
        """`pulsar://127.0.0.1:PORT`."""
        return f"pulsar://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """The address of its admin REST API, without a slash at the end."""
        return f"http://127.0.0.1:{self._web.number}"

    def admin(self, method: str, path: str, body: object = None) -> object:
        """Call the admin REST API and return its answer, decoded; None if it is empty.

        `path` starts after `/admin/v2/`, for example `tenants/arc`; `body` is sent as JSON.
        Raises ServerError if the answer is 400 or more, OSError if there is none within 30 s.
        """
        data = None if body is None else json.dumps(body).encode()
        status, answer = http(method, f"{self.admin_url}/admin/v2/{path}", data, timeout=30)
        if status >= 400:
            raise ServerError(
                f"Pulsar answered {status} to {method} {path}: {answer.decode()[:500]}"
            )
        return json.loads(answer) if answer else None

    def _configuration(self) -> dict[str, str]:
        return {
            "clusterName": "standalone",
            "brokerServicePort": str(self.port),
            "webServicePort": str(self._web.number),
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "metadataStoreUrl": "",
            "configurationMetadataStoreUrl": "",
            "managedLedgerDefaultEnsembleSize": "1",
            "managedLedgerDefaultWriteQuorum": "1",
            "managedLedgerDefaultAckQuorum": "1",
            "bookkeeperClientMinNumRacksPerWriteQuorum": "1",
            "loadBalancerEnabled": "false",
            "webSocketServiceEnabled": "false",
            "numHttpServerThreads": "4",
            "statusFilePath": str(self.folder / "status"),
            "transactionCoordinatorEnabled": "false",
        }

    def _command(self) -> list[str]:
        opens = [part for module in _OPENS for part in ("--add-opens", f"{module}=ALL-UNNAMED")]
        return [
            *("java", *self._java, "-Xmx512m", "-XX:MaxDirectMemorySize=256m", *opens),
            "-Dio.netty.tryReflectionSetAccessible=true",
            # Each start unpacks 13 MB of RocksDB there, which a killed one does not remove.
            f"-Djava.io.tmpdir={self.folder}",
            f"-Dlog4j.configurationFile={self.folder / 'log4j2.properties'}",
            *("-cp", f"{_jars()}/*", "org.apache.pulsar.PulsarStandaloneStarter"),
            *("--config", str(self.folder / "standalone.conf")),
            *("--no-functions-worker", "--no-stream-storage"),
            *("--metadata-dir", str(self.folder / "metadata")),
            *("--bookkeeper-dir", str(self.folder / "bookkeeper")),
            *("--bookkeeper-port", str(self._bookie.number)),
        ]

    def _ready(self) -> bool:
        return http("GET", f"{self.admin_url}/admin/v2/brokers/health")[0] == 200

    def _spent(self, began: float) -> float:
        """Return the processor's seconds that it has had, at least a fifth of those that passed.

        A start takes 10 to 20 of them, however long a busy machine makes it wait for each.
        """
        passed = super()._spent(began) / _PATIENCE
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # no Linux, or it has just ended
            return passed
        ticks = int(fields[11]) + int(fields[12])  # in user and in system mode
        return max(passed, ticks / os.sysconf("SC_CLK_TCK"))

    def _release(self) -> None:
        super()._release()
        self._web.release()
        self._bookie.release()


class PulsarLiteServer(Server):
    """A pulsar-lite: one small binary that speaks Pulsar's protocol, with much left out."""

    kind: ClassVar[str] = "pulsar-lite"

    def __init__(self, *, port: int | None, folder: Path | None) -> None:
        """Find the program; `pulsar_lite_server` starts it."""
        self._program = _lite_program()
        super().__init__(folder, port)

    @property
    def url(self) -> str:
        """`pulsar://127.0.0.1:PORT`."""
        return f"pulsar://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        address, data = f"127.0.0.1:{self.port}", str(self.folder / "data")
        return [str(self._program), "--addr", address, "--db-path", data, "--log-level", "warn"]

    def _ready(self) -> bool:
        # It has no health endpoint; it opens its port last.
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


def pulsar_server(
    *,
    settings: dict[str, str] | None = None,
    port: int | None = None,
    folder: Path | None = None,
    optimised: bool = False,
) -> PulsarServer:
    """Start an Apache Pulsar 4.0.8 and return it ready for clients, after 5 to 12 s.

    Args:
        settings: lines for `standalone.conf` beside ours, for example
            `{"brokerDeduplicationEnabled": "true"}`.
        port: for clients; any free one if left out.
        folder: for data; a temporary one, removed at the end, if left out.
        optimised: let the JVM optimise, for what runs long or is measured; it starts more slowly.

    Raises ServerError if Java or the jars are missing (`why_not()` says which), or if it does not
    start: the message has its log.
    """
    return started(PulsarServer(settings=settings, port=port, folder=folder, optimised=optimised))


def pulsar_lite_server(*, port: int | None = None, folder: Path | None = None) -> PulsarLiteServer:
    """Start a pulsar-lite and return it ready for clients.

    Raises ServerError if it is not installed, or does not start: the message has its log.
    """
    return started(PulsarLiteServer(port=port, folder=folder))


def pulsar_available() -> bool:
    """Return whether `pulsar_server()` has what it needs."""
    return not why_not()


def why_not() -> str:
    """Return what `pulsar_server()` lacks and the remedy, or "" if it lacks nothing."""
    if shutil.which("java") is None:
        return (
            "Apache Pulsar needs Java 17 or newer; on Debian: apt-get install default-jdk-headless"
        )
    if not _jars().exists():
        return f"Apache Pulsar is not fetched; mend it with: {_REMEDY}"
    return ""


def fetch_pulsar() -> Path:
    """Fetch Apache Pulsar's jars (232 MB) by Maven, unless they are there; return their folder.

    The folder is `arc-bus/pulsar-4.0.8` in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`), or
    what `ARC_BUS_PULSAR_JARS` names. Raises ServerError if Maven is missing or fails.
    """
    jars = _jars()
    if jars.exists():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerError("fetching Apache Pulsar needs Maven; on Debian: apt-get install maven")
    jars.parent.mkdir(parents=True, exist_ok=True)
    # Into a neighbour first, and renamed when whole: a broken fetch must not look like a good one.
    with tempfile.TemporaryDirectory(dir=jars.parent) as beside:
        fetched = Path(beside) / jars.name
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        command = [maven, "-q", "-B", "-ntp", "-f", str(_POM), *goal, "-DincludeScope=runtime"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=beside)
        if done.returncode != 0:
            raise ServerError(f"Maven could not fetch Apache Pulsar:\n{done.stdout[-2000:]}")
        if not jars.exists():  # two fetched at once: the first one's will do
            fetched.rename(jars)
    return jars


def _jars() -> Path:
    named = os.environ.get("ARC_BUS_PULSAR_JARS")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "arc-bus" / f"pulsar-{VERSION}"


def _lite_program() -> Path:
    found = importlib.util.find_spec("pulsar_lite")
    if found is None or found.origin is None:
        raise ServerError(
            "pulsar-lite is not installed; mend it with: pip install 'arc-bus[servers]'"
        )
    return Path(found.origin).parent / "bin" / "pulsar-lite"
