"""The built wheel works in an empty environment, with its two dependencies and no checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"arc_bus", "arc_store", "arc_telemetry", "arc_inmemory", "arc_nats", "arc_pulsar"}
EXTRAS = {
    "nats",
    "pulsar",
    "store",
    "telemetry",
    "cli",
    "servers",
    "uvloop",
    "all",
    "asyncpg",
    "sqlite",
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and its two dependencies, and no more.

    The dependencies are copied from this environment, so that the test needs no registry.
    """
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False, symlinks=True)
    program = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    for name in ("pluggy", "msgspec"):
        for file in importlib.metadata.files(name) or []:
            source, target = Path(str(file.locate())), site / file
            if ".." not in file.parts and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    uv = [str(Path(sys.executable).parent / "uv"), "pip"]
    quiet = ["--quiet", "--offline", "--no-index", "--python", str(program)]
    subprocess.run([*uv, "install", *quiet, "--no-deps", str(wheel)], check=True)
    subprocess.run([*uv, "check", "--quiet", "--python", str(program)], check=True)
    return program


def run(python: Path, script: str) -> str:
    """Run `script` in the empty environment, far from the checkout, and return what it printed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(python.parent)}
    done = subprocess.run(
        [str(python), "-I", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=python.parent,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PUBLISH_AND_SUBSCRIBE = """
import asyncio
import msgspec
import arc_bus
from arc_bus import Bus

class Ping(msgspec.Struct):
    number: int

async def main():
    bus = Bus(service="t", routes={"": "memory://"})
    arrived = asyncio.get_running_loop().create_future()

    @bus.subscribe("agent.brain.ping")
    async def handle(ping: Ping) -> None:
        arrived.set_result(ping)

    async with bus:
        await bus.publish("agent.brain.ping", Ping(42))
        ping = await asyncio.wait_for(arrived, 5)
    print(ping.number, arc_bus.__file__)

asyncio.run(main())
"""

NO_CLIENT = """
import asyncio
from arc_bus import Bus
from arc_bus.errors import MissingExtra

async def main(url):
    try:
        async with Bus(service="t", routes={"": url}):
            print("no error")
    except MissingExtra as error:
        print(error)

for url in "nats://127.0.0.1:1", "nats+jetstream://127.0.0.1:1", "pulsar://127.0.0.1:1":
    asyncio.run(main(url))
"""


ACME = """
from arc_bus import hookimpl
from arc_inmemory.transport import MemoryTransport

@hookimpl
def arc_transports():
    return {"acme": MemoryTransport}
"""


def test_foreign_transport_is_picked_up_by_its_urls_scheme(python: Path) -> None:
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    (site / "acme_bus.py").write_text(ACME)
    information = site / "acme_bus-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bus\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[arc_bus]\nacme = acme_bus\n")
    try:
        script = PUBLISH_AND_SUBSCRIBE.replace("memory://", "acme://")
        assert run(python, script).startswith("42 ")
    finally:
        shutil.rmtree(information)
        (site / "acme_bus.py").unlink()


def test_publish_and_subscribe_without_extras(python: Path) -> None:
    number, path = run(python, PUBLISH_AND_SUBSCRIBE).split()
    assert number == "42"
    assert str(ROOT) not in path


def test_missing_client_names_the_extra(python: Path) -> None:
    said = run(python, NO_CLIENT).splitlines()
    wanted = [("nats-py", "nats"), ("nats-py", "nats"), ("pulsar-client", "pulsar")]
    assert said == [
        f"the library {library!r} is not installed; mend it with: pip install 'arc-bus[{extra}]'"
        for library, extra in wanted
    ]


def test_command_without_its_extra_names_it(python: Path) -> None:
    command = [str(python.parent / "arc-bus"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=python.parent)
    assert done.returncode != 0
    assert "arc-bus[cli]" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_servers_without_their_extra_name_it(python: Path) -> None:
    script = (
        "from arc_bus.servers import *\n"
        "for start in postgres_server, pulsar_lite_server:\n"
        "    try: start()\n"
        "    except ServerError as error: print(error)\n"
    )
    assert run(python, script).count("arc-bus[servers]") == 2


def test_wheel_has_the_six_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert "arc_bus/servers/pulsar_pom.xml" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_core_has_two_dependencies_and_the_rest_are_extras(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    core = [line for line in required if "extra ==" not in line]
    assert sorted(re.split(r"[<>=]", line)[0] for line in core) == ["msgspec", "pluggy"]
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_extra_all_is_the_sum_of_the_others(metadata: Message) -> None:
    def of(extra: str) -> set[str]:
        mark = f"extra == '{extra}'"
        lines = metadata.get_all("Requires-Dist", [])
        return {line.partition(";")[0].strip() for line in lines if mark in line}

    assert of("all") == set().union(*(of(extra) for extra in EXTRAS - {"all"}))


def test_each_entry_point_is_found_by_name(python: Path) -> None:
    script = (
        "import json; from importlib.metadata import entry_points as of\n"
        "print(json.dumps({e.name: e.value for e in of(group='arc_bus')}))"
    )
    found = json.loads(run(python, script))
    assert found == {
        "memory": "arc_inmemory",
        "nats": "arc_nats",
        "nats+jetstream": "arc_nats",
        "tls": "arc_nats",
        "tls+jetstream": "arc_nats",
        "pulsar": "arc_pulsar",
        "pulsar+ssl": "arc_pulsar",
        "store": "arc_store",
        "telemetry": "arc_telemetry",
    }


def test_sdist_builds_and_has_what_its_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "Makefile", "README.md", "requirements-dev.txt", "tests/conftest.py"}
    assert wanted <= names
    assert not [name for name in names if name.startswith((".venv", "build/", "dist/"))]
